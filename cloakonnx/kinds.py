"""Names a file that is not what was asked for by how it starts, and says what to do about it."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from cloakonnx.errors import CloakError

_HEAD = 512
"""Bytes at the start of a file that tell its kind."""

_POINTER = "a Git LFS pointer, not the file itself: get that with 'git lfs pull'"
_TORCH = "torch.onnx.export(model.eval(), (x,), 'model.onnx')"
_CHECKPOINT = f"a PyTorch checkpoint: load it in PyTorch, and export the model with {_TORCH}"
_SCRIPTED = "a TorchScript model: torch.onnx.export(torch.jit.load(FILE), (x,), 'model.onnx', dynamo=False) exports it"
_PROGRAM = (
    "a program of torch.export: torch.onnx.export(torch.export.load(FILE), f='model.onnx', dynamo=True) exports it"
)
_PICKLE = (
    "a Python pickle, as old PyTorch checkpoints are, which is not opened: it could run code; export the model to ONNX "
    f"where you trust the file: {_TORCH}, or skl2onnx.to_onnx(model, X[:1])"
)
_SCIKIT = (
    "a pickle (joblib) of a scikit-learn model, which is not opened: it could run code; export the model where you "
    "trust the file: skl2onnx.to_onnx(model, X[:1].astype('float32')).SerializeToString()"
)
_ORT = "a model in ONNX Runtime's own format (.ort): take the .onnx file that it was converted from"
_LITE = "a TensorFlow Lite model: python -m tf2onnx.convert --tflite FILE --output model.onnx converts it"
_HDF5 = (
    "an HDF5 file, as Keras writes them: python -m tf2onnx.convert --keras FILE --output model.onnx converts the model"
)
_KERAS = "a Keras file: keras.models.load_model(FILE).export('model.onnx', format='onnx') exports the model"
_SAVED = (
    "a TensorFlow SavedModel: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx converts the folder"
)
_GRAPH = (
    "a TensorFlow graph, by its suffix: python -m tf2onnx.convert --graphdef FILE --inputs X:0 --outputs Y:0 "
    "--output model.onnx converts it"
)
_NO_WAY_BACK = "has no way back to ONNX: export the model that it was converted from with its own framework"
_OPENVINO = f"a model of OpenVINO (IR, .xml and .bin), which {_NO_WAY_BACK}"
_CORE_ML = f"a Core ML model, which {_NO_WAY_BACK}"
_TENSORRT = f"a TensorRT engine, which {_NO_WAY_BACK}"
_EXECUTORCH = f"an ExecuTorch program, which {_NO_WAY_BACK}"
_LIGHTGBM = "a LightGBM model: onnxmltools.convert_lightgbm converts it"
_XGBOOST = "an XGBoost model: onnxmltools.convert_xgboost converts it"
_CATBOOST = "a CatBoost model: CatBoost's save_model(FILE, format='onnx') exports it"
_HUGGING_FACE = (
    "a folder of Hugging Face's transformers: optimum-cli export onnx --model FOLDER OUTPUT exports the model"
)
_GZIP = "packed with gzip: unpack it first, with 'gunzip'"
_PAGE = "an HTML page, as servers send them for a file that is not there or needs a login: download it again"
_SAFE = (
    "a safetensors file, which has weights and no graph: load it in its framework, and export the model, in PyTorch "
    f"with {_TORCH}"
)

_MAGIC = (
    (0, b"version https://git-lfs.github.com/spec/", _POINTER),
    (0, b"\x89HDF\r\n\x1a\n", _HDF5),
    (0, b"\x1f\x8b", _GZIP),
    (0, b"BZh", "packed with bzip2: unpack it first"),
    (0, b"\xfd7zXZ\x00", "packed with xz: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first"),
    (4, b"ORTM", _ORT),
    (4, b"TFL3", _LITE),
    (4, b"ET12", _EXECUTORCH),
    (0, b"ftrt", _TENSORRT),
    (0, b"ptrt", _TENSORRT),
    (0, b"GGUF", "a GGUF file of a language model, which is no classifier"),
    (0, b"CBM1", _CATBOOST),
    (0, b"tree\nversion=", _LIGHTGBM),
    (0, b'{"learner"', _XGBOOST),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x7fELF", "a program"),
)
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<body")
_MEMBERS = (
    (("[Content_Types].xml",), "an Office file: save the sheet as CSV"),
    (("archive_format", "serialized_exported_program.json"), _PROGRAM),
    (("constants.pkl",), _SCRIPTED),
    (("data.pkl",), _CHECKPOINT),
    (("model.weights.h5",), _KERAS),
)
"""What a zip archive is that has a member whose name ends so; the first that fits."""

_SUFFIXES = {
    ".pt": _CHECKPOINT,
    ".pth": _CHECKPOINT,
    ".ckpt": "a checkpoint, by its suffix: load it in its framework, and export the model to ONNX",
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".joblib": _SCIKIT,
    ".pb": _GRAPH,
    ".mlmodel": _CORE_ML,
    ".engine": _TENSORRT,
    ".pdmodel": "a PaddlePaddle model: paddle2onnx converts it",
}
"""What files are by their names, where their first bytes tell nothing."""


def irregular(path: Path, *, follow: bool = True) -> str | None:
    """Return what a path is that is neither a file nor a folder, None for these and for what is not there.

    Reading a pipe waits for who writes into it, and a device may never end.

    Args:
        path: The path.
        follow: Whether a symbolic link is what it leads to, as it is for inputs; else it is irregular itself.
    """
    try:
        mode = path.stat(follow_symlinks=follow).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def check_regular(path: Path, error: type[CloakError]) -> None:
    """Raise an error of a type for a path that is neither a file nor a folder, as :func:`irregular` says."""
    odd = irregular(path)
    if odd is not None:
        raise error(f"cannot read {path}: it is {odd}, not a file")


def kind_of(path: Path) -> str | None:
    """Return what a file or folder is, in words that say what to do, None where neither bytes nor name tell."""
    if path.is_dir():
        return _folder(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return None
    if path.name == "saved_model.pb":
        return _SAVED
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return _OPENVINO
    found = _archive(path) if head.startswith(b"PK\x03\x04") else kind_of_bytes(head)
    return found or _SUFFIXES.get(path.suffix.lower())


def kind_of_data(path: Path) -> str | None:
    """Return what a file of samples is, as :func:`kind_of` does; what to do with a model is left out."""
    found = kind_of(path)
    return found.partition(":")[0] if found is not None and "onnx" in found.lower() else found


def _folder(path: Path) -> str | None:
    if (path / "saved_model.pb").is_file():
        return _SAVED
    if path.suffix in {".mlpackage", ".mlmodelc"}:
        return _CORE_ML
    weights = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
    if (path / "config.json").is_file() and any((path / name).is_file() for name in weights):
        return _HUGGING_FACE
    return None


def kind_of_bytes(head: bytes) -> str | None:
    """Return what a file with these first bytes is, as :func:`kind_of` does; it does not look into archives."""
    for at, magic, kind in _MAGIC:
        if head[at:].startswith(magic):
            return kind
    if _is_pickle(head):
        return _SCIKIT if b"sklearn." in head else _PICKLE
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27:
        return _SAFE
    return _of_text(head.removeprefix(b"\xef\xbb\xbf").lstrip().lower())


def _of_text(text: bytes) -> str | None:
    if text.startswith((b"<?xml", b"<net ")) and b"<net " in text:
        return _OPENVINO
    if text.startswith(_PAGES):
        return _PAGE
    if text[:1] in {b"{", b"["} and text[1:].lstrip()[:1] in {b'"', b"{", b"[", b"}", b"]"}:
        return "JSON text"
    return None


def _is_pickle(head: bytes) -> bool:
    return head.startswith(b"ccopy_reg\n") or (len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5)


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return "a damaged zip archive"
    for ends, kind in _MEMBERS:
        if any(name.endswith(ends) for name in names):
            return kind
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays (.npz)"
    return "a zip archive: unpack it first"
