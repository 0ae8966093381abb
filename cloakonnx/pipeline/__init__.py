"""Hardens a model in one go: learns or scores, applies, verifies, attacks, reports; finished stages are kept."""
