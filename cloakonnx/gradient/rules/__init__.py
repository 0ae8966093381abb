"""The rules, one module a family of ops; the registry finds them by being there."""
