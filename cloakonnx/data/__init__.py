"""Reads samples batch by batch and brings them into pixel space and the model's layout."""
