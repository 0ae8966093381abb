"""Ctrl-C and SIGTERM become one KeyboardInterrupt, raised where the command sees it.

Python raises between any two instructions. While a module is imported, extensions turn the exception into other errors;
in a finaliser or a weak reference's callback Python prints it and goes on as if nothing had happened.
"""

from __future__ import annotations

import _thread
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # this is loaded before signals are heeded: only what Python has loaded itself
    from sys import UnraisableHookArgs
    from types import FrameType

_NEVER = float("-inf")

_RETRY = 0.001
"""Seconds; a short command may have little left to do when its imports end."""

_CLEANUP = 1.0
"""Seconds within which a second signal is the same one: some runners pass on what the whole group has got already."""


class Interruption:
    """Raises KeyboardInterrupt for signals from ``listen`` to ``end``."""

    def __init__(self) -> None:
        self._raised = _NEVER
        self._ended = self._was_interrupted = False
        self._hook = sys.unraisablehook
        self._thread = _thread.get_ident()

    def listen(self) -> None:
        """Take over SIGTERM, and SIGINT unless it is ignored, as in a shell's background job."""
        signal.signal(signal.SIGTERM, self._signalled)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._signalled)
        sys.unraisablehook = self._unraisable

    def end(self) -> None:
        """Let nothing interrupt what is left: the exit code is known, and Python takes handlers back before its end."""
        self._ended = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if not self._was_interrupted:  # what it has left half made may fail in a finaliser even now
            sys.unraisablehook = self._hook

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._ended or now - self._raised < _CLEANUP:
            return
        if _importing(frame):
            _thread.start_new_thread(_again, (self._thread,))
            return
        self._raised, self._was_interrupted = now, True
        raise KeyboardInterrupt

    def _unraisable(self, unraisable: UnraisableHookArgs) -> None:
        if self._ended:
            return
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            self._raised = _NEVER
            _thread.start_new_thread(_again, (self._thread,))
        elif self._raised == _NEVER:
            self._hook(unraisable)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_find_and_load" and code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _again(thread: int) -> None:
    """Signal once more when the import or the finaliser has had time to end; a ``Thread`` would take locks."""
    time.sleep(_RETRY)
    if sys.platform == "win32":
        _thread.interrupt_main(signal.SIGTERM)
    else:  # a true signal ends a wait as well
        signal.pthread_kill(thread, signal.SIGTERM)
