"""Lets these tests use the harness of tests/gradient."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

torch = pytest.importorskip("torch")
torch.set_num_threads(2)
