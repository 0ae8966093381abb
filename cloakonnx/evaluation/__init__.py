"""Robust accuracy and how far it can be trusted; the proof that a hardened model is its source and the masks."""
