"""Accuracy under many masks of one analysis."""
