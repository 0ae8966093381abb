"""Folds masks into the weights around them."""
