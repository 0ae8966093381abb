"""Where batches are handled, as a text: this process, a Ray that is started for the run, or a Ray cluster."""

from __future__ import annotations

import re

from cloakonnx.errors import OptionError

LOCAL, OWN_RAY, RUNNING_RAY = "local", "ray", "auto"
"""The words for this process, for a Ray that starts and ends with the run, and for the cluster of this machine."""

_CLUSTER = re.compile(r"(?:ray://)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_MOST_PORT = 65535


def checked_address(text: str) -> str:
    """Return a text that says where batches are handled.

    Raises:
        OptionError: it is none of the words, and no host with a port.
    """
    if text in (LOCAL, OWN_RAY, RUNNING_RAY):
        return text
    found = _CLUSTER.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= _MOST_PORT:
        raise OptionError(
            f"{text!r} is neither {LOCAL}, {OWN_RAY} or {RUNNING_RAY}, nor the address of a Ray cluster, such as "
            "ray://HOST:10001 or HOST:6379"
        )
    return text
