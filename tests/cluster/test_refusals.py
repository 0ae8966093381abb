"""What can not run on Ray is refused in one line, before any batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from cloakonnx.engines import Ray
from cloakonnx.errors import OptionError


@pytest.fixture
def refusing() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def no_ray() -> Any:
    """A port that takes connections and says nothing."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen()
        yield found.getsockname()[1]


def refused(address: str) -> str:
    """Return what the command line says of an address: one line, within 10 s of the connection's start."""
    code = (
        "import sys, time, ray\n"
        "from cloakonnx.engines import Ray\n"
        "from cloakonnx.errors import OptionError\n"
        "began = time.monotonic()\n"
        "try:\n"
        f"    Ray({address!r}).workers\n"
        "except OptionError as error:\n"
        "    print(error)\n"
        "assert time.monotonic() - began < 10\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "RAY_TMPDIR"}}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stderr == ""
    (line,) = ran.stdout.splitlines()
    return line


def test_addresses_that_do_not_answer(refusing: int, no_ray: int) -> None:
    for port in (refusing, no_ray):
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            assert refused(address) == f"address {address}: no Ray answers there within 8 s"


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"cpus_per_worker": 0}, {"gpus_per_worker": -1}, {"gpus_per_worker": 1.5}]
)
def test_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="must be"):
        Ray(**options)
