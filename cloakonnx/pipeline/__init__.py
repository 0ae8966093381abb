"""Hardens a model in one go: learns or scores, applies, verifies, attacks, reports; finished stages are kept.

What the other packages may use is named here.
"""

from cloakonnx.pipeline.settings import METHODS, PRESETS, Method, Settings
from cloakonnx.pipeline.stage import PlannedStage
from cloakonnx.pipeline.task import Hardened, StageRun, Task, default_folder, harden

__all__ = [
    "METHODS",
    "PRESETS",
    "Hardened",
    "Method",
    "PlannedStage",
    "Settings",
    "StageRun",
    "Task",
    "default_folder",
    "harden",
]
