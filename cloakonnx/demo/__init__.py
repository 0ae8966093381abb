"""A demonstration that needs no file of the user's: a small real classifier with its data, hardened twice."""
