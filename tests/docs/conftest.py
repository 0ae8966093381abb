"""A folder like the reader's own: a real model, its data under the names that the pages use, `cloakonnx` to call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import cloakonnx
from cloakonnx.demo.demo import write_sample
from tests.support.tables import write_table

from .pages import ROOT

Shell = Callable[[str, Path], subprocess.CompletedProcess[str]]

MADE = {
    "model.cloak.json": ("cloakonnx analyze model.onnx --data clean.npz --adversarial adversarial.npz", ()),
    "learned.cloak.json": (
        "cloakonnx learn model.onnx --data train.npz --select-data val.npz --eps 2/16 --budget 4% --epochs 3",
        (),
    ),
    "model.hardened.onnx": ("cloakonnx apply model.onnx", ("model.cloak.json",)),
    "evaluation.json": (
        "cloakonnx evaluate model.hardened.onnx --data test.npz --eps 2/16 --attack pgd --no-sanity",
        ("model.hardened.onnx",),
    ),
}
"""What pages may start with: the command that makes it, but for its output, and what that needs."""


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Return what runs a text in a shell in a folder; `cloakonnx` and `python` are those under test."""
    programs = tmp_path_factory.mktemp("bin")
    for name, arguments in (("cloakonnx", " -m cloakonnx"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        program.chmod(0o755)
    package = Path(cloakonnx.__file__).parents[1]
    paths = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")])),
    }

    def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-eu", "-c", text],
            cwd=folder,
            env={**os.environ, **paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory, shell: Shell) -> Callable[[list[str], Path], None]:
    """Return what fills a folder: model.onnx, its data, and some of MADE."""
    base, made = tmp_path_factory.mktemp("start"), tmp_path_factory.mktemp("made")
    write_data(base)
    shutil.copytree(base, made, dirs_exist_ok=True)
    write_faulty(made)
    write_table(made)

    def fill(files: list[str], folder: Path) -> None:
        shutil.copytree(base, folder, dirs_exist_ok=True)
        for name in files:
            if name in MADE:
                make(name)
            shutil.copy(made / name, folder / name)

    def make(name: str) -> None:
        command, needed = MADE[name]
        for each in needed:
            make(each)
        if not (made / name).exists():
            done = shell(f"{command} -o {name}", made)
            assert done.returncode == 0, done.stdout

    return fill


def write_data(folder: Path) -> None:
    """Write what the demo leaves, shortened to what is fast enough here, and FGSM versions of ``clean.npz``."""
    write_sample(folder)
    with np.load(ROOT / "samples" / "digits_fgsm.npz") as stored:
        np.savez(folder / "adversarial.npz", x=stored["x"][:200], y=stored["y"][:200])
    for name, kept in (("clean", slice(200)), ("test", slice(100, 160))):
        with np.load(folder / f"{name}.npz") as stored:
            x, y = stored["x"][kept], stored["y"][kept]
        np.savez(folder / f"{name}.npz", x=x, y=y)


def write_faulty(folder: Path) -> None:
    """Write the sample classifier with each of the faults that docs/troubleshooting.md speaks of."""
    model = folder / "model.onnx"

    def before(name: str, op: str, *more: str) -> onnx.ModelProto:
        """Put an op between the input and what reads it."""
        found = onnx.load(model)
        for node in found.graph.node:
            node.input[:] = [name if each == "image" else each for each in node.input]
        found.graph.node.insert(0, helper.make_node(op, ["image", *more], [name]))
        return found

    onnx.save(before("rounded", "Round"), folder / "rounded.onnx")
    onnx.save(before("bent", "Shrink"), folder / "shrink.onnx")
    inputs = before("sum", "Add", "second")
    inputs.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, ["batch", 1, 8, 8]))
    onnx.save(inputs, folder / "inputs.onnx")
    two = onnx.load(model)
    two.graph.output.append(helper.make_tensor_value_info("/6/Relu_output_0", TensorProto.FLOAT, ["batch", 64]))
    onnx.save(two, folder / "two.onnx")
    inside = onnx.load(model)
    flatten = next(node for node in inside.graph.node if node.op_type == "Flatten")
    flatten.CopyFrom(helper.make_node("Reshape", [flatten.input[0], "one"], flatten.output, name=flatten.name))
    inside.graph.initializer.append(numpy_helper.from_array(np.array([1, 512]), "one"))
    onnx.save(inside, folder / "inside.onnx")
    with np.load(folder / "test.npz") as data:
        np.savez(folder / "sixteenths.npz", x=data["x"] * 16, y=data["y"])
