"""Scores features by how far they move between clean inputs and their adversarial versions."""
