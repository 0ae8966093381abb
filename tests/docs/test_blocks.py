"""Every shell and Python block of README and docs runs, page by page, and prints what the page says that it prints."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Shell
from .pages import PAGES, Block, blocks, name_of, runs, script, starts_with

CPU_ONLY = "pip install onnxruntime click jinja2 msgspec numpy onnx onnx-graphsurgeon pillow rich"

NOT_RUN = {
    "README.md: pip install .": "installs",
    "docs/action.md: pip install 'cloakonnx @ git+https://github.com/OWNER/cloakonnx@COMMIT'": "installs",
    "docs/action.md: pip install model-signing pyopenssl": "needs keys",
    "docs/gradients-elsewhere.md: import torch": "needs PyTorch",
    "docs/gradients-elsewhere.md: import numpy as np": "needs torchattacks",
    "docs/gradients-elsewhere.md: from art.attacks.evasion import ProjectedGradientDescent": "needs ART",
    "docs/installing.md: python -m venv .venv": "installs",
    "docs/remote.md: pip install 'cloakonnx[remote]'": "needs a bucket",
    f"docs/installing.md: {CPU_ONLY}": "installs",
    "docs/installing.md: pip install 'onnxruntime-gpu[cuda,cudnn]'": "installs",
    "docs/scale.md: pip install 'cloakonnx[ray,cuda]'": "needs a cluster",
    "docs/scale.md: export RAY_AUTH_MODE=token": "needs a cluster",
    (
        "docs/scale.md: ray job submit --address http://HEAD:8265 --no-wait --    cloakonnx evaluate /data/model.onnx "
        "--data /data/test.npz --eps 8/255 --attack standard --engine auto -o /data/evaluation.json --resume"
    ): "needs a cluster",
    "docs/scale.md: kubectl apply -f rayjob.yaml": "needs a cluster",
    (
        "docs/scale.md: sbatch --nodes=8 ray.sbatch evaluate model.onnx --data test.npz --eps 8/255 --attack standard "
        "-o evaluation.json --resume"
    ): "needs a cluster",
    (
        "docs/scale.md: sbatch --array=1-16 shards.sbatch evaluate model.onnx --data test.npz --eps 8/255 "
        "--attack standard --resume"
    ): "needs a cluster",
    "docs/security.md: import cloakonnx as ck": "needs keys",
    "docs/security.md: sigstore sign model.attestation.json": "needs the network",
    'docs/gradient.md: @unary("Exp", since=6, until=13)': "a part of the code",
}
"""The blocks that no test runs, and why, as the pages say it themselves. Whoever adds one adds it here."""

LANGUAGES = {"sh", "python", "text", "toml", "yaml"}


@pytest.mark.parametrize("page", [page for page in PAGES if any(map(runs, blocks(page)))], ids=name_of)
def test_blocks_run(page: Path, tmp_path: Path, shell: Shell, start: Callable[[list[str], Path], None]) -> None:
    found = blocks(page)
    if starts_with(page) != ["nothing"]:
        start(starts_with(page), tmp_path)
    folder = tmp_path
    printed: str | None = None
    for block in found:
        where = f"{block.page}:{block.line}"
        if runs(block):
            done = shell(script(block), folder)
            printed = done.stdout
            folder = moved(folder, block)
            assert done.returncode == block.code, f"{where} exits {done.returncode}:\n{block.text}\n{printed}"
        elif block.language == "text" and printed is not None and not block.quoted:
            missing = unprinted(block.text, printed)
            assert missing is None, f"{where}: the commands before do not print {missing!r} there, but:\n{printed}"


def moved(folder: Path, block: Block) -> Path:
    """Return the folder in which a reader's shell is after a block."""
    for command in block.commands if block.language == "sh" else ():
        if command.startswith("cd "):
            folder = folder / command.removeprefix("cd ")
    return folder


def test_what_is_not_run_is_known() -> None:
    found = {block.name: block.reason for page in PAGES for block in blocks(page) if block.reason is not None}
    assert found == NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_hides(page: Path) -> None:
    """Blocks say what they are, commands stand in shell blocks, and one that fails stands alone."""
    for block in blocks(page):
        where = f"{block.page}:{block.line}"
        assert block.language in LANGUAGES, f"{where}: {block.language!r} is none of {', '.join(sorted(LANGUAGES))}"
        if block.language == "text":
            commands = [line for line in block.text.splitlines() if re.match(r"(\$|cloakonnx [a-z]|make |pip )", line)]
            assert not commands, f"{where}: commands belong in a block of sh"
        if block.code:
            assert len(block.commands) == 1, (
                f"{where}: of several commands it is not plain which one exits {block.code}"
            )


def unprinted(wanted: str, printed: str) -> str | None:
    """Return the first line of ``wanted`` that does not come in ``printed``, in this order; None if all do.

    Numbers may differ, for attacks end elsewhere on another machine; `...` stands for anything.
    """
    lines = iter(map(plain, printed.splitlines()))
    for line in wanted.splitlines():
        if not line.strip("… .-─"):
            continue
        pattern = re.escape(plain(line)).replace(re.escape("..."), ".*")
        if not any(re.fullmatch(pattern, each) for each in lines):
            return line
    return None


def plain(line: str) -> str:
    """Return a line without widths and numbers."""
    words = re.sub(r"─+", " ", line).split()
    return " ".join("#" if re.search(r"\d", word) else word for word in words)


def test_numbers_may_differ_but_words_may_not() -> None:
    printed = "a.onnx: 3 of 64 removed\n  clean    97.0% [91.5, 99.0]\nwrote b.onnx\n"
    assert unprinted("a.onnx: 5 of 9 removed\n...\nwrote b.onnx", printed) is None
    assert unprinted("clean 1% [0, 2]", printed) is None
    assert unprinted("a.onnx: ...\nwrote ...", printed) is None
    assert unprinted("wrote b.onnx\nclean 97.0% [91.5, 99.0]", printed) == "clean 97.0% [91.5, 99.0]"
    assert unprinted("a.onnx: 5 of 9 added", printed) == "a.onnx: 5 of 9 added"
