"""Tests of the backward graph that need no framework."""
