"""The classifier: a model with its preprocessing, its task, its provider and its sessions."""
