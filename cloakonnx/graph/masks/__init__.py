"""Masks: where they can sit, how they are put into a model, and how they are taken out again."""
