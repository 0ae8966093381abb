"""Engines: where batches are handled, one after the other or several at a time."""

from cloakonnx.engine.batches import Engine, InProcess, Work
from cloakonnx.engine.threads import Threads

__all__ = ["Engine", "InProcess", "Threads", "Work"]
