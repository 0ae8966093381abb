"""The package's shape: imports go one way and in no circle, heavy libraries wait, modules stay small."""

from __future__ import annotations

import ast
import doctest
import graphlib
import importlib
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

FLOORS = (
    ("urls", "errors", "kinds", "text", "remote", "files", "entries", "statistics", "json_files", "preprocessing"),
    ("graph",),
    ("gradient", "runtime", "data"),
    ("classifier", "engine"),
    ("attacks",),
    ("scoring",),
    ("selection",),
    ("evaluation",),
    ("reporting",),
    ("pipeline",),
    ("demo", "doctor"),
    ("cli", "__init__", "_former", "records", "engines", "keys"),
    ("__main__",),
)
"""What stands where, from the ground. A module imports lower floors; on the ground, what stands before it as well."""

GRAPH_ROOMS = ("index", "decompose", "file", "masks", "subgraphs", "fold")
"""The rooms of graph, from the ground."""

MOST_LINES = 400
RULES = {"cloakonnx.graph.decompose"}
"""The folders that are imported as such: that fills their registries."""


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def floors() -> dict[str, int]:
    return {name: number for number, names in enumerate(FLOORS) for name in names}


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
    path = ROOT / Path(*folder.split("."))
    return (path / f"{name}.py").is_file() or (path / name / "__init__.py").is_file()


def own_imports(path: Path) -> Iterator[tuple[str, int]]:
    return ((module, line) for module, line in imports(path) if module.startswith("cloakonnx."))


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in MODULES])
def test_imports_go_one_way(path: Path) -> None:
    here = part_of(path)
    assert here in floors(), f"{here} is new: say in FLOORS where it stands"
    wrong = []
    for module, line in own_imports(path):
        part = module.split(".")[1]
        before = FLOORS[0][: FLOORS[0].index(here)] if here in FLOORS[0] else ()
        if part != here and floors()[part] >= floors()[here] and part not in before:
            wrong.append(f"line {line}: {here} imports {module}")
    assert not wrong


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in MODULES])
def test_doors_are_the_modules_without_an_underscore(path: Path) -> None:
    """A folder names no other module's content, and what starts with ``_`` is its own folder's."""
    wrong = []
    for module, line in own_imports(path):
        folders = module.split(".")[:-1]
        private = module.split(".")[-1].startswith("_")
        if private and list(path.parent.relative_to(ROOT).parts)[: len(folders)] != folders:
            wrong.append(f"line {line}: {module} is its folder's own")
        if (ROOT / Path(*module.split("."))).is_dir() and module not in RULES:
            wrong.append(f"line {line}: {module} is a folder; name the module")
    assert not wrong


def test_no_import_goes_round_in_a_circle() -> None:
    """Function-local imports and those for type checkers included."""
    names = {name_of(path) for path in MODULES}
    arrows = {
        name_of(path): {module for module, _ in own_imports(path) if module in names and module != name_of(path)}
        for path in MODULES
    }
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError, which names the modules


def test_the_rooms_of_graph_stand_on_each_other() -> None:
    wrong = []
    for path in (PACKAGE / "graph").rglob("*.py"):
        here = path.parent.name
        for module, line in own_imports(path):
            parts = module.split(".")
            if parts[1] != "graph" or len(parts) < 4 or here not in GRAPH_ROOMS or parts[2] == here:
                continue
            if GRAPH_ROOMS.index(parts[2]) > GRAPH_ROOMS.index(here):
                wrong.append(f"{path.name}, line {line}: {module}")
    assert wrong == []


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


HEAVY = ("msgspec", "onnx", "onnxruntime", "numpy", "onnx_graphsurgeon", "rich", "google.protobuf")


def loaded_by(statement: str) -> list[str]:
    """Return the names of the modules that a statement loads, in a process of its own."""
    code = (
        "import sys\n"
        "def run(main):\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit:\n"
        "        pass\n"
        f"{statement}\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stderr.splitlines()[-1].split()


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
    assert [name for name in loaded_by(statement) if name in HEAVY] == []


def test_an_attack_loads_nothing_heavier_than_numpy() -> None:
    """Or the command line's help would wait for onnx."""
    for statement in (
        "import cloakonnx.attacks",
        "import sys; from cloakonnx.cli import main; sys.argv = ['cloakonnx', 'attack', '--help']; run(main)",
    ):
        assert [name for name in loaded_by(statement) if name in HEAVY] == ["numpy"]


VERBS = sorted(p.stem for p in (PACKAGE / "cli").glob("*.py") if "\ndef command(" in p.read_text(encoding="utf-8"))


@pytest.mark.parametrize("arguments", [["inspect", "missing.onnx"], ["gate", "missing.json", "--require", "flags==0"]])
def test_a_verb_imports_itself_only(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    statement = f"import sys; from cloakonnx.cli import main; sys.argv = ['cloakonnx', *{arguments!r}]; run(main)"
    found = {name.removeprefix("cloakonnx.cli.") for name in loaded_by(statement) if name.startswith("cloakonnx.cli.")}
    assert len(VERBS) > 10
    assert found & set(VERBS) == {arguments[0]}


def test_every_public_name_is_there() -> None:
    for name in cloakonnx.__all__:
        assert getattr(cloakonnx, name) is not None
    assert set(cloakonnx.__all__) <= set(dir(cloakonnx))
    assert cloakonnx.attacks.PGD(eps=0.1).max_iter == 40
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cloakonnx.nothing


def test_type_checkers_see_the_public_names() -> None:
    """The stub names each public name once, from the module that the package loads it from."""
    found: dict[str | None, str] = {}
    modules: list[str] = []
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body:
        assert isinstance(node, ast.ImportFrom)
        if node.module == "cloakonnx":
            modules += [alias.name for alias in node.names]
            continue
        found |= {alias.asname: f"{node.module}.{alias.name}" for alias in node.names}
    assert modules == ["attacks", "engines", "keys", "records"]
    assert sorted([*found, *modules]) == list(cloakonnx.__all__)
    for name, home in found.items():
        assert getattr(sys.modules[home.rpartition(".")[0]], name) is getattr(cloakonnx, name)


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda folder: folder.name)
def test_each_folder_says_what_it_is(folder: Path) -> None:
    """And no more: its doors are the modules in it."""
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    others = {".", "attacks", "cli", "graph/decompose"}
    assert len(tree.body) == 1 or str(folder.relative_to(PACKAGE)) in others


@pytest.mark.parametrize("module", ["cloakonnx.classifier.abilities", "cloakonnx.classifier.classifier"])
def test_examples_in_docstrings_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(importlib.import_module(module))
    assert (found.failed, found.attempted > 0) == (0, True)
