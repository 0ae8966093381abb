"""Names under which no external data is copied: those that other programs run or read settings from."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from cloakonnx.text import escaped

_CODE = """
    app awk bash bat class cjs cmake cmd com command cpl csh dll dylib elf exe fish go gradle groovy hta htm html ipynb
    jar java jl js jse jsp jsx ksh kt lnk lua make mjs mk msi php phtml pl plx pm ps1 psd1 psm1 pth py pyc pyd pyi pyo
    pyw pyx rb reg rs scala scpt scr sed service sh so svg swift tcl tcsh timer ts tsx url vb vbe vbs wasm whl ws wsf
    xhtml zsh
"""
_SETTINGS = """
    adoc cfg cnf conf config desktop editorconfig env htaccess inf ini json json5 jsonc jsonl lock markdown md mdc
    mobileconfig nix plist properties rst tf tfvars toml xml yaml yml
"""
_ENDINGS = {**dict.fromkeys(_CODE.split(), "code"), **dict.fromkeys(_SETTINGS.split(), "configuration")}
"""Last suffixes of names that something may run or take its settings from."""

_NAMES_TEXT = """
    authorized_keys build cmakelists.txt codeowners configure crontab go.mod go.sum known_hosts meson.build py.typed
    sconscript sconstruct workspace
"""
_NAMES = frozenset(_NAMES_TEXT.split())
"""Names that programs look for."""

_BUILD = "brew cake caddy container docker earth fast gem gnumake jake jenkins just make pip pod proc rake snake tilt"
_LISTS = re.compile(rf"(requirements|constraints).*\.(txt|in)|({'|'.join(_BUILD.split())}|vagrant)file(\..*)?")
"""Kinds of such names: lists of packages, and files of build tools."""

_LIBRARY = re.compile(r"\.so(\.\d+)+$")
_FOLDERS = {"__pycache__", "node_modules", "site-packages", "dist-packages"}


def unsafe_name(location: str) -> str | None:
    """Return why no file is written under the name of external data, None where it may be."""
    parts = PurePosixPath(location.replace("\\", "/")).parts
    if escaped(location) != location:
        return "has characters that can't be seen"
    if any(part.startswith(".") for part in parts):
        return "is hidden, or in a hidden folder"
    if any(part.startswith("-") for part in parts):
        return "starts as an option does"
    if not _FOLDERS.isdisjoint(part.casefold() for part in parts):
        return "is in a folder that code is loaded from"
    kind = _kind(parts[-1].casefold().rstrip(". "))
    return None if kind is None else f"is a name of {kind}"


def _kind(name: str) -> str | None:
    _, dot, ending = name.rpartition(".")
    if dot and ending in _ENDINGS:
        return _ENDINGS[ending]
    if _LIBRARY.search(name):
        return "code"
    return "configuration" if name in _NAMES or _LISTS.fullmatch(name) else None
