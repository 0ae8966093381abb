"""Engines: where batches are handled, one after the other or several at a time."""

from cloakonnx.engine.batches import Engine, InProcess, Pool, Work
from cloakonnx.engine.threads import Threads

__all__ = ["Engine", "InProcess", "Pool", "Threads", "Work"]
