"""The entry point: takes over signals before anything else is loaded, and ends with an exit code.

What is imported above :func:`main` is what runs before a signal is heeded, so it is next to nothing.
"""

from __future__ import annotations

import sys

from cloakonnx.cli._interruption import Interruption

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes as long to import as all of the above
    from typing import NoReturn

_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line and exit."""
    interruption = Interruption()
    try:
        interruption.listen()
        from cloakonnx.cli.verbs import exit_code

        code = exit_code()
    except KeyboardInterrupt:  # while modules were loaded, or between two instructions of what handles the others
        sys.stderr.write("cloakonnx: interrupted; no output was left half-written\n")
        code = _INTERRUPTED
    interruption.end()
    sys.exit(code)
