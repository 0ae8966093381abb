"""Greedy selection of features within a budget of clean accuracy."""
