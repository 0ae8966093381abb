"""Engines: where batches are handled, one after the other, several at a time, on a cluster, or in shards."""

from cloakonnx.engine.batches import Engine, InProcess, Pool, Work
from cloakonnx.engine.cluster.ray import Ray
from cloakonnx.engine.shards.shard import Shard, merge
from cloakonnx.engine.threads import Threads

__all__ = ["Engine", "InProcess", "Pool", "Ray", "Shard", "Threads", "Work", "merge"]
