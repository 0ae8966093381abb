"""Data where it is: class folders, one folder with a CSV, tables; what a small mistake with them looks like."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pyarrow import parquet

from tests.support.tables import write_table

from .conftest import Run

ROOT = Path(__file__).parents[2]
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNT = 80
ATTACK = ("--eps", "2/16", "--attack", "noise", "-o", "a.npz", "--force")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return test digits as (N, 8, 8) uint8, and their labels."""
    sys.path.insert(0, str(ROOT / "samples"))
    try:
        import digits
    finally:
        sys.path.pop(0)
    x, y = digits.test_arrays()
    return np.rint(x[:COUNT, 0] * 255).astype(np.uint8), y[:COUNT]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder: cnn.onnx takes (N, 1, 8, 8); imgs has a folder a class, named by words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cnn.onnx").write_bytes((ROOT / "samples" / "digits_cnn.onnx").read_bytes())
    for number, (pixels, label) in enumerate(zip(*digits(), strict=True)):
        folder = tmp_path / "imgs" / WORDS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return tmp_path


def test_pictures_of_another_size_name_the_options_that_fit_them(here: Path, run: Run) -> None:
    for file in (here / "imgs").glob("*/*.png"):
        Image.open(file).resize((16, 12)).save(file)
    call = ("attack", "cnn.onnx", "--data", "imgs", "--classes", ",".join(WORDS), *ATTACK)
    found = run(*call)
    assert (found.code, "--resize 8 --crop 8 makes them fit" in found.err) == (2, True)
    assert run(*call, "--resize", "8", "--crop", "8").code == 0


def test_a_class_name_with_a_comma_goes_in_quotes(here: Path, run: Run) -> None:
    (here / "imgs" / "one").rename(here / "imgs" / "one, or ace")
    names = [f'"{name}, or ace"' if name == "one" else name for name in WORDS]
    found = run("attack", "cnn.onnx", "--data", "imgs", "--classes", ", ".join(names), *ATTACK)
    assert "1 one, or ace" in found.err


LEVELS = (0.2, 0.4, 0.6, 0.8)


def by_brightness(mean: float, std: float) -> None:
    """Write raw.onnx, which has a class for each level of brightness and takes (x - mean) / std; levels.npz fits it."""
    level = np.array(LEVELS, np.float32)
    weights = {
        "w": (2 * level * std * 20)[None],  # the nearest level has the largest 2 c m - c^2
        "b": (2 * level * mean - level**2) * 20,
    }
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), "raw.onnx")
    y = np.arange(COUNT) % 4
    x = level[y][:, None, None, None] + np.random.default_rng(0).uniform(-0.05, 0.05, (COUNT, 1, 8, 8))
    np.savez("levels.npz", x=x.astype(np.float32), y=y)


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder: tab.onnx takes raw columns; tab.csv, tab.parquet and tab.npz have the same rows."""
    monkeypatch.chdir(tmp_path)
    x, y, names = write_table(tmp_path)
    frame = pa.table({**{name: x[:, place] for place, name in enumerate(names)}, "label": y})
    parquet.write_table(frame, tmp_path / "tab.parquet")
    np.savez("tab.npz", x=x.astype(np.float32), y=y)
    return tmp_path


@pytest.mark.parametrize("file", ["tab.csv", "tab.parquet"])
def test_tables(run: Run, tables: Path, file: str) -> None:
    """A table gives what its arrays give; its bounds are those of its values, and that is said."""
    found = run("evaluate", "tab.onnx", "--data", file, "--label-column", "label", "--eps", "0.05", "--attack", "pgd",
                "--no-sanity", "--json")  # fmt: skip
    assert found.code == 0, found.err
    assert f"cloakonnx: {file}: its values lie in [0, 3234], which are taken for --bounds\n" in found.err
    bounds = ("--bounds", "0,3234")
    same = run("evaluate", "tab.onnx", "--data", "tab.npz", *bounds, "--eps", "0.05",
               "--attack", "pgd", "--no-sanity", "--json")  # fmt: skip
    one, other = json.loads(found.out), json.loads(same.out)
    assert one["clean"] == other["clean"]
    assert one["results"] == other["results"]


VERBS = {
    "attack": ("tab.onnx", "--eps", "0.05", "--attack", "fgsm", "-o", "a.npz"),
    "analyze": ("tab.onnx", "--eps", "0.05", "--attack", "fgsm", "--tap", "columns", "-o", "a.json"),
    "learn": ("tab.onnx", "--eps", "0.05", "--budget", "50%", "--epochs", "1", "--select-data", "tab.csv", "--force"),
    "harden": ("tab.onnx", "--eps", "0.05", "--budget", "50%", "--preset", "quick", "--report-data", "tab.csv"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_tables(run: Run, tables: Path, verb: str) -> None:
    found = run(verb, *VERBS[verb], "--data", "tab.csv", "--label-column", "label")
    assert found.code == 0 or "no masks" in found.err or "tap" in found.err, found.err
    assert "tab.csv: its values lie in" in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (None, ("--label-column", "lable"), "tab.csv has no column 'lable'; did you mean 'label'?"),
        (None, (), "tab.csv has 31 columns of features, and the model takes 30; name the column with the labels with "
                   "--label-column: is it 'label'?"),
        (("17.99,", ","), ("--label-column", "label"), "column 'mean radius', row 0 (line 2 of the file): the value"),
        (("17.99,", "big,"), ("--label-column", "label"), "column 'mean radius', row 0 (line 2 of the file): 'big' is"),
        (("mean radius,", "label,"), ("--label-column", "label"), "tab.csv has 2 columns 'label'"),
        (None, ("--label-column", "label", "--bounds", "0,1"), "outside pixel space [0, 1]; set --bounds"),
        (None, ("--label-column", "mean area"), "column 'mean area' has 519.8 in row 4; labels are names"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit(
    run: Run, tables: Path, change: tuple[str, str] | None, options: tuple[str, ...], said: str
) -> None:
    if change is not None:
        (tables / "tab.csv").write_text((tables / "tab.csv").read_text().replace(*change, 1))
    found = run("attack", "tab.onnx", "--data", "tab.csv", "--eps", "0.05", "--attack", "fgsm", "-o", "a.npz", *options)
    assert found.code == 2
    assert said in found.err
    assert found.err.count("\n") == 1
    assert not (tables / "a.npz").exists()


def test_samples_are_opened_once(run: Run, tables: Path) -> None:
    """Parts beside them open nothing again: what is said is said once, and a script runs once."""
    found = run(
        "harden", "tab.onnx", "--data", "tab.csv", "--label-column", "label", "--report-data", "tab.npz", "--eps",
        "0.05", "--dry-run",
    )  # fmt: skip
    assert found.err.count("tab.csv: its values lie in") == 1
    (tables / "load.py").write_text(
        "import numpy as np\nopen('runs', 'a').write('x')\n"
        "def load():\n    d = np.load('tab.npz')\n    yield d['x'] / 4000, d['y']\n"
    )
    np.savez("small.npz", x=np.load("tab.npz")["x"] / np.float32(4000), y=np.load("tab.npz")["y"])
    found = run("harden", "tab.onnx", "--data-script", "load.py:load", "--report-data", "small.npz", "--eps", "0.05",
                "--dry-run")  # fmt: skip
    assert found.code == 0, found.err
    assert (tables / "runs").read_text() == "x"


def test_names_of_classes_in_a_table(run: Run, tables: Path) -> None:
    text = (tables / "tab.csv").read_text().replace(",1\n", ",benign\n").replace(",0\n", ",malignant\n")
    (tables / "tab.csv").write_text(text)
    call = ("attack", "tab.onnx", "--data", "tab.csv", "--label-column", "label", "--eps", "0.05", "--attack", "fgsm",
            "-o", "a.npz", "--force")  # fmt: skip
    found = run(*call)
    assert "tab.csv: 2 classes: 0 benign, 1 malignant\n" in found.err
    assert "Try --classes malignant,benign" in found.err
    found = run(*call, "--classes", "malignant,benign")
    assert "another order" not in found.err
    assert int(found.err.partition("tab.onnx: ")[2].split()[0]) > 275


def test_one_folder_of_images_with_a_csv_of_labels(run: Run, here: Path) -> None:
    """Numbers and names; what is missing or left over is counted."""
    x, y = digits()
    (here / "flat").mkdir()
    for number, pixels in enumerate(x[:32]):
        Image.fromarray(pixels).save(here / "flat" / f"{number:02}.png")
    rows = [f"{number:02}.png,{label}" for number, label in enumerate(y[:30])]
    (here / "flat" / "labels.csv").write_text("\n".join(["file,label", *rows, "99.png,1"]) + "\n")
    call = ("attack", "cnn.onnx", "--data", "flat", *ATTACK)
    found = run(*call, "--labels", "flat/labels.csv")
    assert found.code == 0, found.err
    said = "1 file that it names is missing (99.png); 2 pictures have no label and are left out (30.png, 31.png)"
    assert f"cloakonnx: labels.csv: {said}\n" in found.err
    right = int(found.err.partition("cnn.onnx: ")[2].split()[0])
    assert right > 27
    rows = [f"{number:02}.png,{WORDS[label]}" for number, label in enumerate(y[:30])]
    (here / "words.csv").write_text("\n".join(rows) + "\n")
    named = run(*call, "--labels", "words.csv", "--classes", ",".join(WORDS))
    assert f"cnn.onnx: {right} of 30 correct" in named.err
    found = run(*call)
    assert found.code == 2
    assert "name a CSV of file names and labels with --labels (labels.csv?)" in found.err


def test_flat_samples(run: Run, here: Path) -> None:
    x, y = digits()
    np.savez("flat.npz", x=x.reshape(COUNT, 64), y=y)
    found = run("attack", "cnn.onnx", "--data", "flat.npz", *ATTACK)
    assert found.code == 0, found.err
    text = "flat.npz: samples of shape (64,) are reshaped to the model's (1, 8, 8), their values in the same order"
    assert found.err.count(f"cloakonnx: {text}\n") == 1
    assert int(found.err.partition("cnn.onnx: ")[2].split()[0]) > 70


def test_tokens(run: Run, here: Path) -> None:
    np.savez("tokens.npz", x=np.random.default_rng(0).integers(0, 30_000, (8, 12)), y=np.zeros(8, int))
    found = run("evaluate", "cnn.onnx", "--data", "tokens.npz", "--eps", "2/16")
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert "tokens of a text model have no pixel space: split the model behind its embedding" in found.err
    assert "pixels from 0 to 255" not in found.err


def test_class_folders_are_printed_with_their_numbers(run: Run, here: Path) -> None:
    """Where another order of the classes explains the model's answers, the option that gives it is said."""
    found = run("attack", "cnn.onnx", "--data", "imgs", *ATTACK)
    assert found.code == 0, found.err
    alphabet = ", ".join(f"{number} {name}" for number, name in enumerate(sorted(WORDS)))
    assert f"cloakonnx: imgs: 10 classes: {alphabet}\n" in found.err
    option = f"--classes {','.join(WORDS)}"
    assert f"Try {option}\n" in found.err
    found = run("attack", "cnn.onnx", "--data", "imgs", *ATTACK, *option.split())
    assert "imgs: 10 classes: 0 zero, 1 one, 2 two," in found.err
    assert "another order" not in found.err
    assert int(found.err.partition("cnn.onnx: ")[2].split()[0]) > 70


def test_more_than_twenty_classes_are_counted(run: Run, here: Path) -> None:
    for number in range(30):
        (here / "many" / f"kind {number}").mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(here / "many" / f"kind {number}" / "a.png")
    found = run("attack", "cnn.onnx", "--data", "many", *ATTACK)
    assert "many: 30 classes: 0 kind 0, 1 kind 1," in found.err
    assert "7 kind 7, ...\n" in found.err


@pytest.mark.parametrize(
    ("how", "given", "said"),
    [
        ((0.1307, 0.3081), (), "with --mean mnist --std mnist"),
        ((0.5, 0.5), (), "with --mean 0.5 --std 0.5"),
        ((0.0, 1 / 255), (), "with --scale 255"),
        ((0.0, 1.0), ("--mean", "2", "--std", "0.3"), "without --scale, --mean and --std"),
    ],
)
def test_preprocessing_that_is_not_the_models(
    run: Run, here: Path, how: tuple[float, float], given: tuple[str, ...], said: str
) -> None:
    by_brightness(*how)
    found = run("attack", "raw.onnx", "--data", "levels.npz", *ATTACK, *given)
    assert found.code == 0, found.err
    assert f"warning: {said} 64 of the first 64 samples would be right" in found.err
    option = said.removeprefix("with ").split() if said.startswith("with ") else ()
    found = run("attack", "raw.onnx", "--data", "levels.npz", *ATTACK, *option)
    assert "would be right" not in found.err
    assert f"raw.onnx: {COUNT} of {COUNT} correct" in found.err


def test_evaluate_and_harden_say_so_too(run: Run, here: Path) -> None:
    by_brightness(0.1307, 0.3081)
    text, data = "with --mean mnist --std mnist", ("--data", "levels.npz", "--eps", "0.01")
    evaluated = run(
        "evaluate", "raw.onnx", "--baseline", "raw.onnx", *data, "--attack", "noise", "--no-sanity", "--json"
    )
    assert text in evaluated.out
    hardened = run("harden", "raw.onnx", *data, "--preset", "quick", "--budget", "0%", "--no-latency")
    assert hardened.code in {0, 1}, hardened.err
    assert text in hardened.err


def test_words_and_columns_in_a_settings_file(run: Run, tables: Path) -> None:
    (tables / "cloakonnx.toml").write_text('label-column = "label"\n[attack]\nmean = "mnist"\nstd = ["mnist"]\n')
    found = run("config", "--show", "attack")
    assert "mnist" in found.out
    found = run("attack", "tab.onnx", "--data", "tab.csv", "--eps", "0.05", "--attack", "noise", "-o", "a.npz")
    assert found.code == 0, found.err
    (tables / "cloakonnx.toml").write_text('[attack]\nmean = "mnits"\n')
    found = run("attack", "tab.onnx", "--data", "tab.csv", "--eps", "0.05", "--attack", "noise", "-o", "a.npz")
    assert found.code == 2
    assert "none of the words imagenet, cifar10, mnist; did you mean 'mnist'?" in found.err


def test_a_model_that_is_right_is_not_doubted(run: Run, here: Path) -> None:
    """Neither is one that no usual preprocessing helps: its labels are noise."""
    x, _ = digits()
    np.savez("noise.npz", x=x[:, None], y=np.random.default_rng(0).integers(0, 10, COUNT))
    found = run("attack", "cnn.onnx", "--data", "noise.npz", *ATTACK)
    assert "would be right" not in found.err
