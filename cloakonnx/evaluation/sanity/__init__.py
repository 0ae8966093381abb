"""Sanity checks of an evaluation, and the flags that they raise."""
