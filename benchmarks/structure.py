r"""The yardsticks of the package's structure, from its source alone: nothing of cloakonnx is imported.

    python benchmarks/structure.py [CHECKOUT] [OTHER] [--list KEY] [--verbose] [--lines-only]

Without CHECKOUT, this one. With two, both columns side by side. `--list KEY` prints the places behind a row (of the
last checkout named), so that they can be hunted down; KEY is in the table's last column and may hold `*` and `?`.
`--verbose` prints the places of every row.

What is counted, so that the same rule holds before and after a change:

- A *signature* is a function or method at any depth with its parameters (`self` included, `*args` and `**kwargs` not);
  a class with annotated fields counts as one signature with these fields. "N in M" is N signatures in M files.
- *Side by side*: one signature has both names.
- *Above the classifier* is every room but those on source_tree.BELOW (what the classifier stands on, `classifier/`
  and `engine/`) and but `cli/`, which has rows of its own. So it holds attacks, scoring, selection, evaluation, report,
  pipeline and the top-level API. A tree without `classifier/` is read the same way.
- A *verb* is a function of `cli/` that is named `command` or has a decorator called `verb` or `...command`; its lines
  start at `def`, below the decorators.
- *Public* is what `cloakonnx/__init__.pyi` names, else `__all__` of `__init__.py`; a name is followed to its home.
- *Circles* are strongly connected groups of modules. Imports inside functions and under TYPE_CHECKING count; the
  `__init__` that Python runs on the way to a module does not.
- *Loops over batches*: `for` statements and comprehensions whose iterable has a call `.batches(...)`. *Loops over
  slices*: whose iterable has `range(0, ..., step)`, outside `graph/`, where it walks blocks of a weight.
- *Modules that emit nodes by hand* call `make_node` or `gs.Node`. *Sets of op names* are set literals of two or more
  strings, all like `Relu`, in what a module assigns at its top level.
- *Lines that hand names on*: all lines of an `__init__` file that imports names, not only modules, from the package, or
  has `__getattr__`; and of `__init__.pyi`.
- *A raise that names an option* is a `raise` statement with `--` and a small letter in a string inside it.
- *Types not exported*: classes and annotated aliases (`X: TypeAlias = ...`) of the package in annotations of public
  functions and of fields, methods and `__init__` of public classes, that neither the package names nor a module that it
  names (`ck.records`, `ck.attacks`).
- *Demanding provider*: public functions, and `__init__` of public classes, with a parameter `provider` without default.
- *Code* lines are what is left after docstrings (any string that is a statement, with the blank lines in it), imports,
  blank lines and lines that are only a comment. redesign.md's 16.3k takes the blank lines in docstrings off twice; that
  figure has a row of its own.
- *Reading and writing of our JSON*: functions of the modules that keep records, of json_files.py (once records.py) and
  of entries.py, which mention json, msgspec, the reader or the walker, or turn a record into what the file has or
  back. Not the checks across entries, nor signatures. Lines with docstrings and blank ones, and without docstrings.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path

from common import table
from source_tree import CLI, PACKAGE, Function, Module, Place, Tree, demanded, fields, line_kinds, parameters

CARRIED = ("input_name", "output_name", "provider", "channel_axis", "sample_shape", "eps", "norm", "seed", "batch_size")
_OPTION = re.compile(r"--[a-z]")
_OP_NAME = re.compile(r"[A-Z][A-Za-z0-9]+")
_MOST_LINES = 400
_JSON = {
    *("Entries", "read_json", "asdict", "as_dict", "difference_entries", "parsed", "dumps"),
    *("loads", "b64decode", "b64encode", "json_text", "converted", "written", "EVALUATION", "SWEEP", "StoredMask"),
    *("JSON_FILE", "StoredMasks", "StoredScores", "Statement"),
}
"""Names that functions which read or write our JSON mention."""
_KEEPERS = re.compile(
    r"cloakonnx/(statistics|evaluation/(evaluation|results|sanity/flags|sweeps/record|verification/attestation)"
    r"|scoring/(analysis|_masks|stored)|report(ing)?/_learning)\.py"
)
_READERS = re.compile(r"cloakonnx/(records|json_files|entries)\.py")


@dataclass(frozen=True)
class Row:
    """A figure, and the places that it counts."""

    key: str
    what: str
    value: str
    places: tuple[Place, ...] = ()


def main() -> None:
    """Print the tables, or the places behind some rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).resolve().parents[1]])
    parser.add_argument("--list", metavar="KEY", dest="key", help="print the places behind a row (* and ? allowed)")
    parser.add_argument("--verbose", action="store_true", help="print the places behind every row")
    parser.add_argument("--lines-only", action="store_true", help="only the table of lines")
    options = parser.parse_args()
    if len(options.checkouts) > 2:
        parser.error("one checkout, or two")
    trees = [Tree(checkout) for checkout in options.checkouts]
    if options.key or options.verbose:
        show_places(trees[-1], options.key or "*")
        return
    heads = ["", "old", "new"] if len(trees) == 2 else ["", str(options.checkouts[0])]
    if not options.lines_only:
        columns = [list(rows_of(tree)) for tree in trees]
        rows = [[each[0].what, *(row.value for row in each), f"`{each[0].key}`"] for each in zip(*columns, strict=True)]
        print(table([*heads, "key"], rows), "\n")
    print(lines_table(trees))


def show_places(tree: Tree, pattern: str) -> None:
    """Print the rows whose key matches, each with its places."""
    rows = [row for row in rows_of(tree) if fnmatchcase(row.key, pattern)]
    if not rows:
        raise SystemExit(f"no row {pattern}; the keys are in the last column of the table")
    for row in rows:
        print(f"{row.key}: {row.what}: {row.value}", *(f"  {place}" for place in row.places), sep="\n")


def rows_of(tree: Tree) -> Iterator[Row]:
    """Compute every row, in the order of the table."""
    yield from _carried(tree)
    yield from _parameters(tree)
    yield from _classes(tree)
    yield from _imports(tree)
    yield from _loops(tree)
    yield from _ops(tree)
    yield from _faces(tree)
    yield from _raises(tree)
    yield from _json(tree)
    yield from _public(tree)
    yield from _sizes(tree)


def _row(key: str, what: str, places: list[Place], *, files: bool = False) -> Row:
    value = f"{len(places)} in {len({place.file for place in places})}" if files else str(len(places))
    return Row(key, what, value, tuple(places))


def _signatures(tree: Tree) -> Iterator[tuple[Module, Function | ast.ClassDef, list[str]]]:
    for module in tree.modules:
        for node in module.nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield module, node, parameters(node)
            elif isinstance(node, ast.ClassDef):
                yield module, node, fields(node)


def _carried(tree: Tree) -> Iterator[Row]:
    signatures = list(_signatures(tree))

    def having(*names: str, where: Callable[[Module], bool] = lambda module: True) -> list[Place]:
        return [
            module.place(node, f"{node.name} ({', '.join(names)})")
            for module, node, found in signatures
            if set(names) <= set(found) and where(module)
        ]

    both = ("provider", "input_name")
    label = "signatures with `provider` and `input_name` side by side"
    yield _row("both", f"{label}, whole package", having(*both))
    outside = having(*both, where=lambda module: module.room not in {"runtime", "classifier"})
    yield _row("both:outside", f"{label}, outside `runtime/` and `classifier/`", outside)
    yield _row("both:above", f"{label}, above the classifier, CLI apart", having(*both, where=lambda m: m.is_above))
    yield _row("both:cli", f"{label}, in the CLI", having(*both, where=lambda module: module.room in CLI))
    for name in CARRIED:
        yield _row(name, f"signatures with `{name}`, whole package", having(name), files=True)
        above = having(name, where=lambda module: module.is_above)
        yield _row(f"{name}:above", f"`{name}` above the classifier, CLI apart", above, files=True)
        yield _row(f"{name}:cli", f"`{name}` in the CLI", having(name, where=lambda m: m.room in CLI), files=True)
    passed = [
        module.place(node, ast.unparse(node.func))
        for module in tree.modules
        for node in module.nodes
        if isinstance(node, ast.Call) and {"input_name", "output_name"} <= {each.arg for each in node.keywords}
    ]
    yield _row("passed-on", "calls that pass `input_name=` and `output_name=` on", passed, files=True)


def _is_verb(node: Function) -> bool:
    called = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return node.name == "command" or any(ast.unparse(each).endswith(("verb", "command")) for each in called)


def _parameters(tree: Tree) -> Iterator[Row]:
    functions = [(m, node, names) for m, node, names in _signatures(tree) if not isinstance(node, ast.ClassDef)]
    many = sorted(
        ((len(names), module, node) for module, node, names in functions if len(names) > 10),
        key=lambda each: -each[0],
    )
    places = [module.place(node, f"{node.name}, {count} parameters") for count, module, node in many]
    yield _row("parameters", "functions over 10 parameters", places)
    verbs = [(m, node, len(names)) for m, node, names in functions if m.room == "cli" and _is_verb(node)]
    wide = [module.place(node, f"{count} parameters") for module, node, count in verbs if count > 10]
    yield _row("parameters:verbs", "of them verbs", wide)
    over = [m.place(node, f"{count} parameters") for m, node, count in verbs if count > 12]
    yield _row("verbs:parameters", "verbs over 12 parameters", over)
    lengths = [(m, node, (node.end_lineno or 0) - node.lineno + 1) for m, node, _ in verbs]
    long = [module.place(node, f"{count} lines") for module, node, count in lengths if count > 40]
    yield _row("verbs:lines", "verbs over 40 lines", long)
    most = f"{max((n for _, _, n in verbs), default=0)}, {max((n for _, _, n in lengths), default=0)}"
    yield Row("verbs:most", "most parameters of a verb, most lines of one", most)
    public = [(m, n) for m, n in tree.public.values() if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    five = [m.place(n, f"{n.name}, {len(parameters(n))} parameters") for m, n in public if len(parameters(n)) > 5]
    yield _row("parameters:public", "public functions over 5 parameters", five)
    ten = [m.place(n, f"{n.name}, {len(parameters(n))} parameters") for m, n in public if len(parameters(n)) > 10]
    yield _row("parameters:public-10", "public functions over 10 parameters", ten)


def _classes(tree: Tree) -> Iterator[Row]:
    homes: dict[str, list[Place]] = defaultdict(list)
    for module in tree.modules:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module.place(node, node.name))
    twice = {name: places for name, places in sorted(homes.items()) if len(places) > 1}
    public = [place for name, places in twice.items() if not name.startswith("_") for place in places]
    named = sum(not name.startswith("_") for name in twice)
    yield Row("classes", "module-level class names that exist twice, private apart", str(named), tuple(public))
    every = tuple(place for places in twice.values() for place in places)
    yield Row("classes:private", "with private ones", str(len(twice)), every)
    yield _row("classes:site", "classes named `Site`", homes.get("Site", []))


def _imports(tree: Tree) -> Iterator[Row]:
    places = [Place(tree.by_name[circle[0]].file, 1, " <-> ".join(circle)) for circle in tree.circles]
    yield _row("circles", "import circles", places)
    rooms = {module.name: module.room for module in tree.modules}
    arrows = sorted({(rooms[a], rooms[b]) for a, found in tree.imports.items() for b in found if rooms[a] != rooms[b]})
    yield _row("arrows", "pairs of rooms of which one imports the other", [Place(a, 0, f"-> {b}") for a, b in arrows])


def _iterables(module: Module) -> Iterator[ast.expr]:
    for node in module.nodes:
        if isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            yield node.iter


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Call))


def _slices(call: ast.Call) -> bool:
    is_range = isinstance(call.func, ast.Name) and call.func.id == "range" and len(call.args) == 3
    return is_range and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0


def _loops(tree: Tree) -> Iterator[Row]:
    over = [(module, each, list(_calls(each))) for module in tree.modules for each in _iterables(module)]
    batches = [
        module.place(each, ast.unparse(each))
        for module, each, calls in over
        if any(isinstance(call.func, ast.Attribute) and call.func.attr == "batches" for call in calls)
    ]
    yield _row("loops:batches", "loops over `.batches()`", batches)
    slices = [
        module.place(each, ast.unparse(each))
        for module, each, calls in over
        if module.room != "graph" and any(map(_slices, calls))
    ]
    yield _row("loops:slices", "loops over slices", slices)
    named = [
        (module, node)
        for module in tree.modules
        for node in module.nodes
        if isinstance(node, (ast.arg, ast.keyword)) and (node.arg or "").startswith("on_")
    ]
    progress = [
        Place(m.file, n.lineno, f"{n.arg}") for m, n in named if isinstance(n, ast.arg) and n.arg == "on_progress"
    ]
    yield _row("progress", "parameters `on_progress`", progress, files=True)
    every = [Place(module.file, node.lineno, f"{node.arg}") for module, node in named]
    yield _row("progress:any", "parameters and arguments named `on_...`", every, files=True)


def _ops(tree: Tree) -> Iterator[Row]:
    emitting: list[Place] = []
    for module in tree.modules:
        makers = [
            call for call in _calls(module.tree) if re.fullmatch(r"(.*\.)?make_node|gs\.Node", ast.unparse(call.func))
        ]
        if makers:
            emitting.append(module.place(makers[0], f"{len(makers)} calls"))
    yield _row("emit", "modules that emit nodes by hand", emitting)
    sets = [
        module.place(each, ", ".join(_strings(each))[:80])
        for module in tree.modules
        for node in module.definitions.values()
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for each in ast.walk(node.value)
        if isinstance(each, ast.Set) and len(each.elts) > 1 and len(_strings(each)) == len(each.elts)
        if all(map(_OP_NAME.fullmatch, _strings(each)))
    ]
    yield _row("op-sets", "sets of op names", sets, files=True)


def _strings(node: ast.AST) -> list[str]:
    return [each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def _faces(tree: Tree) -> Iterator[Row]:
    handing = [module for module in tree.modules if module.is_face and _hands_on(tree, module)]
    handing += [tree.stub] if tree.stub else []
    counted = [(len(module.text.splitlines()), module) for module in handing]
    places = tuple(Place(module.file, 1, f"{count} lines") for count, module in counted)
    yield Row("faces", "lines that hand names on, in `__init__` files", str(sum(n for n, _ in counted)), places)
    top = sum(count for count, module in counted if module.name == PACKAGE)
    yield Row("faces:top", "of them at the top", str(top))


def _hands_on(tree: Tree, module: Module) -> bool:
    return "__getattr__" in module.definitions or any(
        f"{source}.{name}" not in tree.by_name or tree.home(module, name) for source, name in module.taken.values()
    )


def _raises(tree: Tree) -> Iterator[Row]:
    raised = [(m, node) for m in tree.modules for node in m.nodes if isinstance(node, ast.Raise)]
    below = [(module, node) for module, node in raised if module.room not in CLI]
    optional = [
        module.place(node, ast.unparse(node)[:120])
        for module, node in below
        if any(map(_OPTION.search, _strings(node)))
    ]
    yield _row("raises:option", "`raise` below the CLI that names an option", optional, files=True)
    yield Row("raises", "`raise` statements; of them below the CLI", f"{len(raised)}; {len(below)}")


def _json(tree: Tree) -> Iterator[Row]:
    found: list[tuple[Module, Function]] = []
    for module in tree.modules:
        whole = _READERS.fullmatch(module.file) is not None
        if not whole and _KEEPERS.fullmatch(module.file) is None:
            continue
        for node in module.nodes:
            if not isinstance(node, ast.FunctionDef) or node.name in {"check", "_check", "installed_versions", "mark"}:
                continue
            names = (each for each in ast.walk(node) if isinstance(each, (ast.Name, ast.Attribute)))
            if whole or {each.id if isinstance(each, ast.Name) else each.attr for each in names} & _JSON:
                found.append((module, node))
    spans = [_span(node) for _, node in found]
    code = sum(spans) - sum(_docstring_lines(node) for _, node in found)
    places = tuple(
        module.place(node, f"{node.name}, {lines} lines") for (module, node), lines in zip(found, spans, strict=True)
    )
    what = "hand-written reading and writing of our JSON, lines; without docstrings"
    yield Row("json", what, f"{sum(spans)}; {code}", places)


def _span(node: Function) -> int:
    """Return the lines of a function, its decorators included."""
    return (node.end_lineno or node.lineno) - min([node.lineno, *(each.lineno for each in node.decorator_list)]) + 1


def _docstring_lines(node: Function) -> int:
    first = node.body[0]
    return 0 if ast.get_docstring(node) is None else (first.end_lineno or first.lineno) - first.lineno + 1


def _annotations(node: ast.stmt) -> Iterator[ast.expr]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        yield from (each.annotation for each in every if each is not None and each.annotation is not None)
        if node.returns is not None:
            yield node.returns
    elif isinstance(node, ast.ClassDef):
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and not ast.unparse(each.target).startswith("_"):
                yield each.annotation
            elif isinstance(each, ast.FunctionDef) and (each.name == "__init__" or not each.name.startswith("_")):
                yield from _annotations(each)


def _public(tree: Tree) -> Iterator[Row]:
    public = tree.public
    examples = [
        module.place(node, name)
        for name, (module, node) in public.items()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        if re.search(r">>> |```python", ast.get_docstring(node) or "")
    ]
    what = "public docstrings with a runnable example"
    yield Row("examples", what, f"{len(examples)} of {len(public)}", tuple(examples))
    taking: list[Place] = []
    demanding: list[Place] = []
    for name, (module, node) in public.items():
        made = node.body if isinstance(node, ast.ClassDef) else [node]
        for each in made:
            if isinstance(each, ast.FunctionDef) and (each is node or each.name == "__init__"):
                taking += [module.place(each, name)] if "provider" in parameters(each) else []
                demanding += [module.place(each, name)] if "provider" in demanded(each) else []
    text = f"{len(demanding)} of {len(taking)}"
    yield Row("provider:public", "public functions and classes that demand `provider`", text, tuple(demanding))
    homes = {(module.name, node) for module, node in public.values()} | tree.in_public_modules
    missing: dict[tuple[str, int], Place] = {}
    for name, (module, node) in public.items():
        for used in (n for each in _annotations(node) for n in ast.walk(each) if isinstance(n, ast.Name)):
            home = tree.home(module, used.id)
            if home and isinstance(home[1], (ast.ClassDef, ast.AnnAssign)) and (home[0].name, home[1]) not in homes:
                missing.setdefault((home[0].name, home[1].lineno), home[0].place(home[1], f"{used.id}, of {name}"))
    yield _row("types", "types in public signatures without a public path", list(missing.values()))


def _sizes(tree: Tree) -> Iterator[Row]:
    lengths = [(module.text.count("\n"), module) for module in tree.modules]
    long = [Place(module.file, 1, f"{count} lines") for count, module in lengths if count > _MOST_LINES]
    yield _row("modules:long", f"modules over {_MOST_LINES} lines", long)
    longest = max(lengths, key=lambda each: each[0])
    yield Row("modules", "modules; lines of the longest", f"{len(lengths)}; {longest[0]} ({longest[1].file})")
    counts = [line_kinds(module) for module in tree.modules]
    whole = {kind: sum(each[kind] for each in counts) for kind in counts[0]}
    twice = whole["code"] + whole["blank"] - whole["all blank"]
    yield Row("code:redesign", "code as redesign.md counts it", f"{twice:,}")


def lines_table(trees: list[Tree]) -> str:
    """Return lines and code by room; for one checkout, the other kinds of lines too."""
    kinds = ["lines", "code"] if len(trees) > 1 else ["lines", "code", "imports", "docstrings", "blank", "comments"]
    sums: list[dict[str, dict[str, int]]] = []
    for tree in trees:
        found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for module in tree.modules:
            for group in ("total", *_groups(module)):
                for kind, count in line_kinds(module).items():
                    found[group][kind] += count
        sums.append(found)
    names = sorted({name for each in sums for name in each}, key=lambda name: (name == "total", name))
    sides = [""] if len(trees) == 1 else ["old ", "new "]
    rows = [[name, *(f"{each[name][kind]:,}" for each in sums for kind in kinds)] for name in names]
    return table(["folder", *(f"{side}{kind}" for side, _ in zip_longest(sides, trees) for kind in kinds)], rows)


def _groups(module: Module) -> list[str]:
    """Return the folder below the package, and the one inside that; modules at the top are one group."""
    folders = module.parts[:-1]
    return ["/".join(folders[: depth + 1]) + "/" for depth in range(len(folders))] or ["(top)"]


if __name__ == "__main__":
    main()
