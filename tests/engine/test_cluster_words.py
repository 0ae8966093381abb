"""What is said of a cluster, which needs none."""

from __future__ import annotations

import pytest

from cloakonnx.engine.cluster._losses import in_short
from cloakonnx.engine.cluster._versions import check, versions
from cloakonnx.errors import WorkerError


@pytest.mark.parametrize("name", ["Python", "cloakonnx", "ONNX Runtime"])
def test_every_version_counts(name: str) -> None:
    here = versions()
    check(here, here, "10.0.0.2")
    for found, said in ((here | {name: "0.0.1"}, f"has {name} 0.0.1"), (here | {name: ""}, f"has no {name}")):
        with pytest.raises(WorkerError) as caught:
            check(found, here, "10.0.0.2")
        assert str(caught.value).startswith(
            f"the Ray node 10.0.0.2 {said}, and this process has {name} {here[name]}: install the same versions"
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Version mismatch:\n    2.49\n    2.60", "Version mismatch: 2.49 2.60"),
        (
            'Failure from server:\nTraceback (most recent call last):\n  File "a.py", line 1\nValueError: no room\n',
            "Failure from server: ValueError: no room",
        ),
    ],
)
def test_what_ray_says_in_short(text: str, said: str) -> None:
    assert in_short(text) == said
