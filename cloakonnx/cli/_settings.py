"""Options from a file: ``cloakonnx.toml``, or ``[tool.cloakonnx]`` of ``pyproject.toml``, beside where one works.

Keys are the options' names; those of a table named as a verb are that verb's, those above the tables go to every verb
that has such an option. Flags win over the file, a verb's table over what is shared. ``model`` stands in for MODEL, and
each table of ``[[models]]`` is a model for ``cloakonnx check``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cloakonnx.errors import OptionError, nearest
from cloakonnx.kinds import check_regular
from cloakonnx.remote import fetched

_OWN, _PYPROJECT = Path("cloakonnx.toml"), Path("pyproject.toml")
_MOST = 1 << 20
"""Bytes of the largest settings file."""

_MODEL, _MODELS, _EVALUATE = "model", "models", "evaluate"
_OF_MODELS = ("path", "name")
"""Keys of a table of ``[[models]]`` beside the options that a model is evaluated with."""

_LISTS = {"eps", "classes"}
"""Options that take text with commas in it, and so a list."""

_REPLACES = {
    "data": {"data-script"},
    "data-script": {"data"},
    "adversarial": {"adversarial-script"},
    "adversarial-script": {"adversarial"},
    "analysis": {"mask", "tap", "feature-axis"},
    "mask": {"analysis", "remove", "threshold"},
    "remove": {"threshold", "mask", "tap", "feature-axis"},
    "threshold": {"remove", "mask", "tap", "feature-axis"},
    "criterion": {"select", "budget", "rounds", "select-data"},
    "select": {"criterion"},
    "targets": {"targeted"},
    "targeted": {"targets"},
    "foldable": {"zero-below"},
    "zero-below": {"foldable"},
    "fold": {"float16-masks"},
    "float16-masks": {"fold"},
    "json": {"markdown"},
    "markdown": {"json"},
}
"""What a flag also takes the place of in the file, because both together would be an error."""
_REPLACES_IN = {
    "analyze": {
        "adversarial": {"attack", "eps"},
        "adversarial-script": {"attack", "eps"},
        "attack": {"adversarial", "adversarial-script"},
    }
}
"""The same in one verb, where others take both together."""


_BY_HAND = {"data-script": "runs code", "adversarial-script": "runs code"} | dict.fromkeys(
    ("output", "force", "junit", "save-adversarial"), "decides which files are written over"
)
_BY_HAND["engine"] = "decides which machines get the model and the samples"
_BY_HAND |= {"sign-key": "uses a private key"} | dict.fromkeys(
    ("key", "certificate", "ca"), "decides whose signature counts"
)
_WRITES = {"attestation": {"apply"}, "samples": {"evaluate"}}
"""Options that name an output for these verbs, and an input for others."""

_WEAKENS = {"limit": True, "no-sanity": True, "allow-inconclusive": True, "hash-external": False}
"""Options, and whether it is their being set or their being false that leaves something unchecked."""


@dataclass(frozen=True)
class Setting:
    """One option of one verb, from the file.

    Attributes:
        name: The option without its dashes.
        value: As it stands in the file.
        origin: The file, and the table in it.
    """

    name: str
    value: Any
    origin: str


@dataclass(frozen=True)
class SettingsFile:
    """What a file says.

    Attributes:
        name: Of the file, with the table for pyproject.toml.
        shared: Above the tables, by option name.
        tables: By verb.
        is_named: Whether the user named the file; else it was found in the working directory.
        model: What stands in for MODEL; None where it is not set.
        models: Tables of ``[[models]]``.
    """

    name: str
    shared: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Any]]
    is_named: bool
    model: str | None = None
    models: tuple[Mapping[str, Any], ...] = ()

    def of(self, verb: str, command: click.Command) -> Iterator[Setting]:
        """Yield what the file says of a verb's options."""
        table = self.tables.get(verb, {})
        for name in options(command):
            if name in table:
                yield Setting(name, table[name], f"{self.name} [{verb}]")
            elif name in self.shared:
                yield Setting(name, self.shared[name], self.name)

    def defaults(self, verb: str, command: click.Command, arguments: Sequence[str]) -> dict[str, Any]:
        """Return a verb's values by parameter, as click's ``default_map`` takes them; what flags replace is left out.

        Raises:
            OptionError: a value of the wrong type.
        """
        known = options(command)
        given = {name for name in known if any(a == f"--{name}" or a.startswith(f"--{name}=") for a in arguments)}
        replaced = given | _replaced(verb, given)
        found = (setting for setting in self.of(verb, command) if setting.name not in replaced)
        values = {str(known[each.name].name): converted(each, known[each.name]) for each in found}
        takes_model = any(isinstance(each, click.Argument) and each.name == _MODEL for each in command.params)
        return {**values, _MODEL: self.model} if takes_model and self.model is not None else values

    def weakened(self, verb: str, command: click.Command, defaults: Mapping[str, Any]) -> Iterator[str]:
        """Yield a line for each setting in force that a found file weakens a result with; nothing where it was named.

        Args:
            verb: The verb.
            command: Its command.
            defaults: What :meth:`defaults` returned.
        """
        known = options(command)
        in_force = (each for each in self.of(verb, command) if str(known[each.name].name) in defaults)
        return self.weakening(in_force)

    def weakening(self, settings: Iterable[Setting]) -> Iterator[str]:
        """Yield a line for each setting that a found file weakens a result with; nothing where the file was named."""
        for each in () if self.is_named else settings:
            if _WEAKENS.get(each.name) is (each.value is not False):
                yield f"{each.origin} sets {each.name} = {json.dumps(each.value, default=str)}"

    def of_model(self, number: int, command: click.Command) -> Iterator[Setting]:
        """Yield what a table of ``[[models]]``, and else the rest of the file, says of a model's options.

        Args:
            number: Of the table, counted from 0.
            command: Has the options.

        Raises:
            OptionError: a key that is no option, or one that only a file that is named may have.
        """
        table, where = self.models[number], f"{self.name} [[models]] {number + 1}"
        for key in table:
            _check_known(key, {*_OF_MODELS, *options(command)}, where, "models have no option")
            _check_may_set(key, None, where, is_named=self.is_named)
        rest = (each for each in self.of(_EVALUATE, command) if each.name not in table)
        yield from (Setting(key, value, where) for key, value in table.items() if key not in _OF_MODELS)
        replaced = _replaced(_EVALUATE, table)
        yield from (each for each in rest if each.name not in replaced)


def _replaced(verb: str, given: Iterable[str]) -> set[str]:
    """Return the options of a file that others, which are given, take the place of."""
    own = _REPLACES_IN.get(verb, {})
    return {name for each in given for name in (*_REPLACES.get(each, ()), *own.get(each, ()))}


def options(command: click.Command) -> dict[str, click.Option]:
    """Return a verb's options by their long names."""
    found = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            name = next(each for each in parameter.opts if each.startswith("--"))
            found[name.removeprefix("--")] = parameter
    return found


def read_settings(path: Path | None, load: Callable[[], Mapping[str, click.Command]]) -> SettingsFile | None:
    """Read the file that was named, or the one in the working directory; None where there is none.

    Args:
        path: The file that was named.
        load: Returns all verbs' commands; called only where there is a file, because it imports every verb.

    Raises:
        OptionError: it can't be read, is not TOML, has a key that is no option or verb, or was found and has a key that
            only a file that is named may have.
    """
    found = _table(path)
    if found is None:
        return None
    name, table = found
    commands = load()
    model, models = table.pop(_MODEL, None), table.pop(_MODELS, [])
    _check_models(model, models, name)
    shared = {key: value for key, value in table.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    everywhere = {option for command in commands.values() for option in options(command)}
    for key in shared:
        _check_known(key, everywhere, name, "no verb has an option")
        _check_may_set(key, None, name, is_named=path is not None)
    for verb, entries in tables.items():
        _check_known(verb, commands, name, "there is no verb")
        for key in entries:
            _check_known(key, options(commands[verb]), f"{name} [{verb}]", f"{verb} has no option")
            _check_may_set(key, verb, f"{name} [{verb}]", is_named=path is not None)
    return SettingsFile(name, shared, tables, is_named=path is not None, model=model, models=tuple(models))


def _check_models(model: object, models: object, name: str) -> None:
    """Check that ``model`` is a path, and ``[[models]]`` tables with one each; raises OptionError."""
    if model is not None and (not isinstance(model, str) or not model):
        raise OptionError(
            f"{name}: {_MODEL} is the path of a model, not {model!r}; several are [[{_MODELS}]] with a path each"
        )
    if not isinstance(models, list) or not all(isinstance(each, dict) for each in models):
        raise OptionError(f"{name}: {_MODELS} are tables, each headed [[{_MODELS}]], with path = 'model.onnx' and more")
    if model is not None and models:
        raise OptionError(f"{name} has {_MODEL} and [[{_MODELS}]]; give every model a table of [[{_MODELS}]]")
    for number, each in enumerate(models, 1):
        where = f"{name} [[{_MODELS}]] {number}"
        if "path" not in each:
            raise OptionError(f"{where} has no path; give it path = 'model.onnx'")
        for key in _OF_MODELS:
            if not isinstance(each.get(key, "-"), str) or not each.get(key, "-"):
                raise OptionError(f"{where}: {key} is a text, not {each[key]!r}")


def _check_may_set(key: str, verb: str | None, where: str, *, is_named: bool) -> None:
    """Check that a file which was found sets nothing that a stranger's folder should not decide."""
    why = _BY_HAND.get(key)
    if key in _WRITES and (verb is None or verb in _WRITES[key]):
        why = _BY_HAND["output"]
    if why is not None and not is_named:
        raise OptionError(
            f"{where}: {key} {why}, so a file that is found by itself may not set it; give --{key} on the command "
            "line, or name the file with --config"
        )


def _check_known(key: str, known: Collection[str], where: str, said: str) -> None:
    if key not in known:
        raise OptionError(f"{where}: {said} {key!r}{nearest(key, known)}")


def _table(path: Path | None) -> tuple[str, dict[str, Any]] | None:
    """Return the table of options and its name: of the file that is named, else of what is in the working directory."""
    named = path is not None
    path = path or (_OWN if _OWN.is_file() else _PYPROJECT)
    if not named and not path.is_file():
        return None
    table = _parsed(path)
    if path.name != _PYPROJECT.name:
        return str(path), table
    tools = table.get("tool")
    own = tools.get("cloakonnx") if isinstance(tools, dict) else None
    if own is None and not named:
        return None
    if not isinstance(own, dict):
        raise OptionError(f"{path} has no table [tool.cloakonnx]")
    return f"{path} [tool.cloakonnx]", own


def _parsed(path: Path) -> dict[str, Any]:
    import tomllib

    check_regular(fetched(path), OptionError)
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST + 1)
        if len(content) > _MOST:
            raise OptionError(f"{path} has over {_MOST:,} bytes, which is the limit; it holds options only")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise OptionError(f"{path} is not TOML: {error}") from None


def converted(setting: Setting, option: click.Option) -> Any:
    """Return a setting as click takes it: a truth value, a text, or a list of texts.

    Raises:
        OptionError: the option takes no such value.
    """
    value, where = setting.value, f"{setting.origin}: {setting.name}"
    if option.is_flag:
        if not isinstance(value, bool):
            raise OptionError(f"{where} is true or false, not {value!r}")
        return value
    parts = value if isinstance(value, list) else [value]
    if not parts or not all(isinstance(part, (str, int, float)) and not isinstance(part, bool) for part in parts):
        raise OptionError(f"{where} is a text or a number, not {value!r}")
    texts = [str(part) for part in parts]
    if not option.multiple:
        plain = isinstance(option.type, (click.types.StringParamType, click.Path, click.Choice))
        if isinstance(value, list) and plain and setting.name not in _LISTS:
            raise OptionError(f"{where} is one text, not the list {value!r}")
        texts = [",".join(texts)]
    for text in texts:
        try:
            option.type.convert(text, option, None)
        except click.BadParameter as error:
            raise OptionError(f"{where}: {error.message}") from None
    return texts if option.multiple else texts[0]
