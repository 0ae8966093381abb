"""Signals are handled after a call as before it: the command line takes them over, and ignores them at its end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def same_handlers() -> Iterator[None]:
    """Put back the handlers of SIGINT and SIGTERM; a process started later would ignore what is ignored here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
