"""What structure.py reads of a checkout: its modules, parsed, and where their names come from. Imports no cloakonnx."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

PACKAGE = "cloakonnx"
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Found: TypeAlias = "tuple[Module, ast.stmt]"
BELOW = {
    *("errors", "numbers", "markup", "text", "files", "entries", "statistics", "records", "json_files"),
    *("kinds", "preprocessing"),
    *("graph", "gradient", "runtime", "data", "classifier", "engine"),
}
"""Rooms that are not above the classifier: those it stands on, itself, and the engine beside it."""
CLI = {"cli", "__main__"}


@dataclass(frozen=True)
class Place:
    """Somewhere in the source: a file relative to the checkout, a line, what is there."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


class Module:
    """One file of the package."""

    def __init__(self, path: Path, root: Path) -> None:
        self.file = path.relative_to(root).as_posix()
        self.parts = path.relative_to(root / PACKAGE).parts
        self.room = self.parts[0].removesuffix(".py").removesuffix(".pyi")
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text, filename=str(path))
        names = [PACKAGE, *self.parts[:-1], path.stem]
        self.is_face = names[-1] == "__init__"
        self.name = ".".join(names[:-1] if self.is_face else names)
        self.folder = self.name if self.is_face else self.name.rpartition(".")[0]

    @property
    def is_above(self) -> bool:
        """Whether it is above the classifier; a room that BELOW does not name is."""
        return self.room not in BELOW | CLI

    def place(self, node: ast.stmt | ast.expr, what: str) -> Place:
        """Return where a node is."""
        return Place(self.file, node.lineno, what)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes, at any depth."""
        return list(ast.walk(self.tree))

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """What the module defines at its top level, by name."""
        found: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found[node.targets[0].id] = node
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = node
        return found

    @cached_property
    def taken(self) -> dict[str, tuple[str, str]]:
        """What it imports by ``from cloakonnx... import name``, anywhere: the name here, module and name there."""
        return {
            alias.asname or alias.name: (source, alias.name)
            for node in self.nodes
            if isinstance(node, ast.ImportFrom)
            if (source := self.source(node)).split(".")[0] == PACKAGE
            for alias in node.names
        }

    def source(self, node: ast.ImportFrom) -> str:
        """Return the full name of the module that names are imported from, relative imports included."""
        if not node.level:
            return node.module or ""
        base = self.folder.split(".")[: len(self.folder.split(".")) - node.level + 1]
        return ".".join([*base, *([node.module] if node.module else [])])


class Tree:
    """The package of one checkout."""

    def __init__(self, checkout: Path) -> None:
        root = checkout.resolve()
        if not (root / PACKAGE / "__init__.py").is_file():
            sys.exit(f"{checkout} holds no {PACKAGE}/__init__.py")
        self.modules = [Module(path, root) for path in sorted((root / PACKAGE).rglob("*.py"))]
        self.by_name = {module.name: module for module in self.modules}
        stub = root / PACKAGE / "__init__.pyi"
        self.stub = Module(stub, root) if stub.is_file() else None

    def home(self, module: Module, name: str) -> Found | None:
        """Follow a name from where it is used to the module that defines it; None where that is not this package."""
        seen: set[tuple[str, str]] = set()
        here: Module | None = module
        while here is not None and (here.name, name) not in seen:
            if name in here.definitions:
                return here, here.definitions[name]
            if name not in here.taken:
                return None
            seen.add((here.name, name))
            there, name = here.taken[name]
            here = self.by_name.get(there)
        return None

    @cached_property
    def public(self) -> dict[str, Found]:
        """The names of the package that are functions or classes, each with its home.

        What ``__init__.pyi`` names, else ``__all__``, else what ``__init__.py`` imports from the package.
        """
        top = self.stub or self.by_name[PACKAGE]
        names = _all(top) or list(top.taken)
        homes = {name: self.home(top, name) for name in names}
        return {
            name: home
            for name, home in homes.items()
            if home is not None and isinstance(home[1], (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        }

    @cached_property
    def in_public_modules(self) -> set[Found]:
        """What the modules import that the package names as public ones: ``ck.records``, ``ck.attacks``."""
        top = self.stub or self.by_name[PACKAGE]
        named = [self.by_name.get(f"{source}.{name}") for source, name in top.taken.values()]
        found = (self.home(module, name) for module in named if module is not None for name in module.taken)
        return {(home[0].name, home[1]) for home in found if home is not None}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Which modules each module imports, inside functions and for type checkers too.

        ``from cloakonnx.a import b`` is the module a.b where there is one and a itself names nothing so, else a. That
        Python runs the ``__init__`` of the folders above an imported module does not count.
        """
        return {module.name: set(self._imported(module)) - {module.name} for module in self.modules}

    def _imported(self, module: Module) -> Iterator[str]:
        for node in module.nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in self.by_name)
            elif isinstance(node, ast.ImportFrom):
                source = module.source(node)
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    face = self.by_name.get(source)
                    named = face is not None and face is not module and self.home(face, alias.name) is not None
                    if inner in self.by_name and not named:
                        yield inner
                    elif face is not None:
                        yield source

    @cached_property
    def circles(self) -> list[list[str]]:
        """Groups of modules in which each reaches every other by imports (strongly connected components)."""
        reached = {name: self._reached(name) for name in self.imports}
        groups = {tuple(sorted({name, *(o for o in reached[name] if name in reached[o])})) for name in self.imports}
        return sorted(list(group) for group in groups if len(group) > 1)

    def _reached(self, start: str) -> set[str]:
        reached: set[str] = set()
        waiting = [start]
        while waiting:
            new = self.imports[waiting.pop()] - reached
            reached |= new
            waiting.extend(new)
        return reached


def _all(module: Module) -> list[str]:
    node = module.definitions.get("__all__")
    value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
    if not isinstance(value, (ast.List, ast.Tuple)):
        return []
    return [each.value for each in value.elts if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def parameters(node: Function) -> list[str]:
    """Return the names of the parameters, ``self`` included, ``*args`` and ``**kwargs`` not."""
    return [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def demanded(node: Function) -> set[str]:
    """Return the parameters that have no default."""
    positional = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
    first = positional[: len(positional) - len(node.args.defaults)]
    keywords = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return {*first, *(each.arg for each, default in keywords if default is None)}


def fields(node: ast.ClassDef) -> list[str]:
    """Return the names of the annotated fields."""
    return [
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]


def line_kinds(module: Module) -> dict[str, int]:
    """Count a file's lines: code, docstrings (blank lines in them included), imports, blank, comments."""
    kinds: dict[int, str] = {}
    for node in module.nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            kind = "imports"
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            kind = "docstrings"
        else:
            continue
        kinds.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), kind))
    counts = dict.fromkeys(("lines", "code", "imports", "docstrings", "blank", "comments", "all blank"), 0)
    for number, line in enumerate(module.text.splitlines(), start=1):
        bare = line.strip()
        other = "blank" if not bare else "comments" if re.match("#", bare) else "code"
        counts["lines"] += 1
        counts[kinds.get(number, other)] += 1
        counts["all blank"] += not bare
    return counts
