"""Hardening in one go."""
