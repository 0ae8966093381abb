"""The proof that a hardened model is its source and the masks."""
