"""Samples from a user's Python file, which runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from cloakonnx.data.arrays import missing
from cloakonnx.data.sources import ScriptSource, failed
from cloakonnx.errors import DataError, nearest
from cloakonnx.urls import address


def open_script(spec: str) -> ScriptSource:
    """Load ``FILE.py:FUNCTION``; this runs the file, so only a spec that the user gave for that purpose may come here.

    Raises:
        DataError: no such file or function, or the file fails.
    """
    file, colon, function = spec.rpartition(":")
    path = Path(file)
    if address(spec) is not None:
        raise DataError(f"{address(spec)}: a script runs from a file of this machine only")
    if not colon or not function.isidentifier() or path.suffix != ".py":
        raise DataError(f"{spec!r} is not of the form FILE.py:FUNCTION")
    if not path.is_file():
        raise missing(path)
    folder = str(path.absolute().parent)
    # Registered, because dataclasses and pickle look modules up by name.
    module_name = f"cloakonnx_script_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    if module_spec is None or module_spec.loader is None:
        raise DataError(f"cannot load {path}")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module
    sys.path.insert(0, folder)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing is left beside the script
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise failed(path, error) from error
    finally:
        sys.path.remove(folder)
        sys.dont_write_bytecode = writes
    if folder not in sys.path:
        sys.path.append(folder)  # last, where it shadows nothing: the function may import its neighbours when it runs
    found = getattr(module, function, None)
    if not callable(found):
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise DataError(f"{path} has no function {function!r}{nearest(function, public)}")
    return ScriptSource(spec, found)
