"""The package's shape: imports go one way, heavy libraries wait, modules stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import cloakonnx

PACKAGE = Path(cloakonnx.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))

BOTTOM = {"errors", "numbers", "markup"}
GRAPH = {"graph"} | BOTTOM
ENGINES = GRAPH  # gradient, runtime and data know the graph, not each other
MIDDLE = {"gradient", "runtime", "data"} | GRAPH
ALLOWED = {
    "errors": set(),
    "numbers": set(),
    "markup": set(),
    "graph": BOTTOM,
    "gradient": ENGINES,
    "runtime": ENGINES,
    "data": ENGINES,
    "attacks": MIDDLE,
    "scoring": MIDDLE | {"attacks"},
    "selection": MIDDLE | {"attacks", "scoring"},
    "evaluation": MIDDLE | {"attacks", "scoring", "selection"},
    "report": MIDDLE | {"attacks", "scoring", "selection", "evaluation"},
    "pipeline": MIDDLE | {"attacks", "scoring", "selection", "evaluation", "report"},
    "cli": MIDDLE | {"attacks", "scoring", "selection", "evaluation", "report", "pipeline"},
    "__init__": MIDDLE | {"attacks", "scoring", "selection", "evaluation", "report", "pipeline"},
    "__main__": {"cli"},
}
"""What each part may import. Within the middle, what makes values comes before what uses them."""

MOST_LINES = 400


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the modules that a file imports, those inside functions and for type checkers included, and the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            for alias in node.names:
                yield (f"{module}.{alias.name}" if is_module(module, alias.name) else module), node.lineno


def is_module(folder: str, name: str) -> bool:
    """Whether ``from folder import name`` gives a module, not something that the folder names alike."""
    path = ROOT / Path(*folder.split("."))
    return (path / f"{name}.py").is_file() and name not in named_by(path)


@cache
def named_by(folder: Path) -> set[str]:
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in MODULES])
def test_imports_go_one_way(path: Path) -> None:
    here = part_of(path)
    assert here in ALLOWED, f"{here} is new: say in ALLOWED what it may import"
    wrong = []
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "cloakonnx" or len(parts) == 1:
            continue
        if parts[1] != here and parts[1] not in ALLOWED[here]:
            wrong.append(f"line {line}: {here} imports {module}")
        if parts[1] != here and len(parts) > 2:
            wrong.append(f"line {line}: {module} is inside {parts[1]}; take what cloakonnx.{parts[1]} names")
    assert not wrong


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in MODULES])
def test_no_name_of_another_module_that_starts_with_an_underscore(path: Path) -> None:
    """Whole modules may be private to their folder; single names are private to their module."""
    wrong = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cloakonnx"):
            for alias in node.names:
                if alias.name.startswith("_") and not is_module(node.module or "", alias.name):
                    wrong.append(f"line {node.lineno}: {alias.name}")
    assert not wrong


def test_modules_are_small() -> None:
    counts = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: count for name, count in counts.items() if count > MOST_LINES} == {}


HEAVY = ("onnx", "onnxruntime", "numpy", "onnx_graphsurgeon", "rich", "google.protobuf")


@pytest.mark.parametrize(
    "statement",
    [
        "import cloakonnx",
        "import cloakonnx.cli",
        "import cloakonnx; dir(cloakonnx); cloakonnx.CloakError",
        "import sys; from cloakonnx.cli import main; sys.argv = ['cloakonnx', '--help']; run(main)",
        "import sys; from cloakonnx.cli import main; sys.argv = ['cloakonnx', '--version']; run(main)",
        "import sys; from cloakonnx.cli import main; sys.argv = ['cloakonnx', 'apply', '--help']; run(main)",
        "import sys; from cloakonnx.cli import main; sys.argv = ['cloakonnx', 'aply']; run(main)",
    ],
)
def test_what_needs_no_model_loads_nothing_heavy(statement: str) -> None:
    code = (
        "import sys\n"
        "def run(main):\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit:\n"
        "        pass\n"
        f"{statement}\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.splitlines()[-1] == ""


def test_every_public_name_is_there() -> None:
    for name in cloakonnx.__all__:
        assert getattr(cloakonnx, name) is not None
    assert set(cloakonnx.__all__) <= set(dir(cloakonnx))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cloakonnx.nothing


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda folder: folder.name)
def test_each_folder_says_what_it_is(folder: Path) -> None:
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
