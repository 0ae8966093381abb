"""Masks learned against attacks that see them."""
