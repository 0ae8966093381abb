"""Engines: where batches are handled, one after the other, several at a time, or on a cluster."""

from cloakonnx.engine.batches import Engine, InProcess, Pool, Work
from cloakonnx.engine.cluster.ray import Ray
from cloakonnx.engine.threads import Threads

__all__ = ["Engine", "InProcess", "Pool", "Ray", "Threads", "Work"]
