"""Runs the shell steps of a composite action in order, as GitHub's runner does; other actions' steps are only noted.

What is not understood (an expression, a context, a shell) is an error, so that a test can't pass over it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_TOKEN = re.compile(r"\s*(==|!=|&&|\|\||[!()]|'(?:[^']|'')*'|[A-Za-z_][\w.-]*)")
_STATUS = re.compile(r"\b(always|success|failure|cancelled)\(\)")
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.S)


@dataclass
class Step:
    """What became of a step.

    Attributes:
        name: Its id, or its name.
        conclusion: ``success``, ``failure`` or ``skipped``.
        code: The exit code of its shell.
        said: What its shell printed, both streams.
        given: ``with`` of another action, evaluated.
    """

    name: str
    conclusion: str
    code: int = 0
    said: str = ""
    given: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Ran:
    """What became of the action."""

    steps: list[Step]
    outputs: Mapping[str, str]
    summary: str

    @property
    def passed(self) -> bool:
        return all(step.conclusion != "failure" for step in self.steps)

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)


class Runner:
    """A clean folder, and the files and variables that a runner gives.

    Args:
        folder: Holds the workspace, in which steps run, and the runner's own files.
        path: Folders in which the steps find commands.
    """

    def __init__(self, folder: Path, path: str) -> None:
        self.workspace, self.temp, self._files = folder / "work space", folder / "temp", folder / "files"
        for each in (self.workspace, self.temp, self._files):
            each.mkdir()
        self.path = path

    def run(
        self,
        action: Path,
        inputs: Mapping[str, str],
        *,
        others: Mapping[str, Mapping[str, str]],
        instead: Mapping[str, Callable[[], Mapping[str, str]]] | None = None,
    ) -> Ran:
        """Run the action in a folder.

        Args:
            action: Folder of its ``action.yml``.
            inputs: By name; those left out take their defaults.
            others: Actions that it uses, to the outputs that they give.
            instead: Ids of steps, to what is called in their place and gives their outputs.
        """
        content = yaml.safe_load((action / "action.yml").read_text(encoding="utf-8"))
        assert content["runs"]["using"] == "composite"
        known = content.get("inputs", {})
        assert set(inputs) <= set(known)
        missing = [n for n, each in known.items() if each.get("required") and n not in inputs]
        assert not missing
        values = {name: inputs.get(name, each.get("default", "")) for name, each in known.items()}
        contexts = Contexts(values, {"action_path": str(action)})
        steps, summary, more_path, more_env = [], "", "", {}
        for number, step in enumerate(content["runs"]["steps"]):
            name = step.get("id", step.get("name", f"step {number}"))
            condition = str(step.get("if", "success()")).strip()
            inner = _EXPRESSION.fullmatch(condition)
            condition = inner[1] if inner else condition
            if not _STATUS.search(condition):
                condition = f"success() && ({condition})"
            if not truth(contexts.evaluate(condition)):
                steps.append(Step(name, "skipped"))
                contexts.outputs.setdefault(name, {})
                continue
            if name in (instead or {}):
                assert instead is not None
                contexts.outputs[name] = dict(instead[name]())
                steps.append(Step(name, "success"))
                continue
            if "uses" in step:
                given = {key: contexts.filled(value) for key, value in step.get("with", {}).items()}
                contexts.outputs[name] = dict(others[step["uses"]])
                steps.append(Step(name, "success", given=given))
                continue
            assert step["shell"] == "bash", f"{name}: only bash is known here"
            files = {key: self._files / f"{number}-{key}" for key in ("OUTPUT", "STEP_SUMMARY", "ENV", "PATH")}
            for path in files.values():
                path.write_text("")
            env = {
                "PATH": f"{more_path}{self.path}",
                "HOME": str(self._files),
                "RUNNER_TEMP": str(self.temp),
                "GITHUB_WORKSPACE": str(self.workspace),
                "GITHUB_ACTION_PATH": str(action),
                **{f"GITHUB_{key}": str(path) for key, path in files.items()},
                **more_env,
                **{key: contexts.filled(value) for key, value in step.get("env", {}).items()},
            }
            script = self._files / f"{number}.sh"
            script.write_text(contexts.filled(step["run"]), encoding="utf-8")
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
                env=env,
                cwd=self.workspace,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=300,
                check=False,
            )
            contexts.outputs[name] = named_values(files["OUTPUT"].read_text(encoding="utf-8"))
            more_env |= named_values(files["ENV"].read_text(encoding="utf-8"))
            more_path = "".join(f"{line}{os.pathsep}" for line in files["PATH"].read_text().splitlines()) + more_path
            summary += files["STEP_SUMMARY"].read_text(encoding="utf-8")
            contexts.failed |= done.returncode != 0
            conclusion = "failure" if done.returncode else "success"
            steps.append(Step(name, conclusion, done.returncode, done.stdout.decode()))
        outputs = {name: contexts.filled(each["value"]) for name, each in content.get("outputs", {}).items()}
        return Ran(steps, outputs, summary)


def named_values(text: str) -> dict[str, str]:
    """Read what steps append to $GITHUB_OUTPUT: ``name=value``, or ``name<<END`` and lines up to ``END``."""
    values, lines = {}, iter(text.splitlines())
    for line in lines:
        if not line:
            continue
        found = re.match(r"([^=<]+)(=|<<)(.*)", line)
        assert found is not None, f"not name=value: {line!r}"
        if found[2] == "=":
            values[found[1]] = found[3]
            continue
        inside: list[str] = []
        for each in lines:
            if each == found[3]:
                break
            inside.append(each)
        else:
            raise AssertionError(f"{found[1]} has no end")
        values[found[1]] = "\n".join(inside)
    return values


def truth(value: str | bool) -> bool:
    """Whether GitHub takes a value as true: every text but the empty one is."""
    return value if isinstance(value, bool) else value != ""


class Contexts:
    """Values of expressions."""

    def __init__(self, inputs: Mapping[str, str], github: Mapping[str, str]) -> None:
        self.inputs, self.github = inputs, github
        self.outputs: dict[str, dict[str, str]] = {}
        self.failed = False

    def filled(self, value: Any) -> str:
        """Return a value of the file with its expressions evaluated."""
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return _EXPRESSION.sub(lambda found: _text(self.evaluate(found[1])), text)

    def evaluate(self, expression: str) -> str | bool:
        """Return what an expression comes to; ``||`` and ``&&`` give one of their sides, as in JavaScript."""
        tokens: list[str] = []
        rest = expression.strip()
        while rest:
            found = _TOKEN.match(rest)
            assert found is not None, f"not understood: {rest}"
            tokens.append(found[1])
            rest = rest[found.end() :].strip()
        value = self._either(tokens)
        assert not tokens, f"not understood: {' '.join(tokens)} in {expression}"
        return value

    def _either(self, tokens: list[str]) -> str | bool:
        value = self._both(tokens)
        while tokens[:1] == ["||"]:
            del tokens[0]
            other = self._both(tokens)
            value = value if truth(value) else other
        return value

    def _both(self, tokens: list[str]) -> str | bool:
        value = self._compared(tokens)
        while tokens[:1] == ["&&"]:
            del tokens[0]
            other = self._compared(tokens)
            value = other if truth(value) else value
        return value

    def _compared(self, tokens: list[str]) -> str | bool:
        value = self._single(tokens)
        while tokens[:1] in (["=="], ["!="]):
            sign = tokens.pop(0)
            other = self._single(tokens)
            assert isinstance(value, str), "only texts are compared here"
            assert isinstance(other, str), "only texts are compared here"
            value = (value.casefold() == other.casefold()) == (sign == "==")
        return value

    def _single(self, tokens: list[str]) -> str | bool:
        token = tokens.pop(0)
        if token == "!":
            return not truth(self._single(tokens))
        if token == "(":
            value = self._either(tokens)
            assert tokens.pop(0) == ")"
            return value
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if tokens[:2] == ["(", ")"]:
            del tokens[:2]
            return {"always": True, "success": not self.failed, "failure": self.failed, "cancelled": False}[token]
        return self._value(token)

    def _value(self, name: str) -> str:
        match name.split("."):
            case ["inputs", key]:
                return self.inputs[key]
            case ["github", key]:
                return self.github[key]
            case ["steps", step, "outputs", key]:
                return self.outputs[step].get(key, "")
        raise AssertionError(f"no such value: {name}")


def _text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value
