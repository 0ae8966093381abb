"""Exports for docs/models.md: transformers from configurations and timm architectures, with gradients by torch.

    python benchmarks/exports.py transformers FOLDER
    python benchmarks/exports.py timm FOLDER [--only GLOB]

It needs torch, transformers and timm (``pip install --no-deps timm``: torchvision, which it imports, is replaced by a
stub here), and is no part of the project's environment. Models are tiny or the smallest variants, with random weights.
transformers' are exported by both exporters, each at the oldest and newest opset that it writes them in; timm's by both
at the newest. Beside MODEL.onnx, MODEL.npz has two samples ``x``, a ``cotangent`` (2, classes), the ``gradient`` of the
sum of logits times cotangent in float64, and ``float32``, the relative error of torch's own float32. What is not
exported is in ``refused.json``.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import json
import logging
import re
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import nn

SECONDS = 240
"""That an export may take."""

TORCHSCRIPT, DYNAMO = (9, 11, 12, 13, 14, 16, 17, 18, 20), (18, 20, 23, 24, 25)
"""Opsets to try; the first and the last that work are kept."""

Maker = Callable[[], "tuple[nn.Module, torch.Tensor]"]


class Head(nn.Module):
    """One tensor in, class scores out."""

    def __init__(self, model: nn.Module, key: str, head: nn.Module | None = None) -> None:
        super().__init__()
        self.model, self.key, self.head = model, key, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        found = self.model(**{self.key: x})
        if self.head is None:
            return found.logits
        return self.head(found.last_hidden_state.mean(1))


def transformers_models() -> dict[str, Maker]:
    """Return what makes each model and two samples."""
    import transformers as t

    text = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": 4}
    text |= {"intermediate_size": 64, "max_position_embeddings": 40}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    image = {"image_size": 32, "patch_size": 8, "num_labels": 4}
    pixels = (3, 32, 32)

    def made(
        model: Any, config: Any, key: str, shape: tuple[int, ...], *, head: bool = False, scale: float = 1
    ) -> Maker:
        def make() -> tuple[nn.Module, torch.Tensor]:
            whole = model(config)
            whole = whole.encoder if model is t.WhisperModel else whole
            return Head(whole, key, nn.Linear(32, 4) if head else None), torch.rand(2, *shape) * scale

        return make

    embedded = "inputs_embeds", (12, 32)
    distil = t.DistilBertConfig(
        vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=40, num_labels=4
    )
    swin = t.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=4
    )
    convnext = t.ConvNextConfig(hidden_sizes=[16, 24], depths=[1, 1], num_stages=2, num_labels=4)
    wav2vec2 = t.Wav2Vec2Config(
        **small, conv_dim=(16, 16), conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2, num_labels=4,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, classifier_proj_size=16,
    )  # fmt: skip
    whisper = t.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64, decoder_layers=1, num_mel_bins=8,
        decoder_attention_heads=4, decoder_ffn_dim=64, max_source_positions=20, vocab_size=100, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    clip = t.CLIPVisionConfig(**small, image_size=32, patch_size=8)
    llama = t.LlamaConfig(
        vocab_size=100, **small, num_key_value_heads=2, max_position_embeddings=40, num_labels=4, pad_token_id=0,
        use_cache=False,
    )  # fmt: skip
    bert, roberta = t.BertConfig(**text), t.RobertaConfig(**text, pad_token_id=1)
    return {
        "bert": made(t.BertForSequenceClassification, bert, *embedded),
        "distilbert": made(t.DistilBertForSequenceClassification, distil, *embedded),
        "roberta": made(t.RobertaForSequenceClassification, roberta, *embedded),
        "vit": made(t.ViTForImageClassification, t.ViTConfig(**small, **image), "pixel_values", pixels),
        "deit": made(t.DeiTForImageClassification, t.DeiTConfig(**small, **image), "pixel_values", pixels),
        "swin": made(t.SwinForImageClassification, swin, "pixel_values", pixels),
        "convnext": made(t.ConvNextForImageClassification, convnext, "pixel_values", pixels),
        "whisper": made(t.WhisperModel, whisper, "input_features", (8, 40), head=True),
        "wav2vec2": made(t.Wav2Vec2ForSequenceClassification, wav2vec2, "input_values", (800,), scale=0.1),
        "clip": made(t.CLIPVisionModel, clip, "pixel_values", pixels, head=True),
        "llama": made(t.LlamaModel, llama, *embedded, head=True),
    }


TIMM = {
    **dict.fromkeys(
        ("resnet10t", "regnetx_002", "mobilenetv2_035", "mobilenetv3_small_050", "efficientnet_b0", "densenet121"), 64
    ),
    **dict.fromkeys(("dla46_c", "hardcorenas_a", "ghostnet_050", "repvgg_a0", "convnext_atto", "convnextv2_atto"), 64),
    **dict.fromkeys(
        ("mobilevit_xxs", "edgenext_xx_small", "lcnet_035", "tinynet_e", "mnasnet_small", "rexnet_100"), 64
    ),
    **dict.fromkeys(("poolformerv2_s12", "pvt_v2_b0", "hgnetv2_b0", "starnet_s1", "mambaout_femto"), 64),
    **dict.fromkeys(("vit_tiny_patch16_224", "deit_tiny_patch16_224", "xcit_nano_12_p16_224"), 64),
    "swin_tiny_patch4_window7_224": 56,
    "mixer_s32_224": 64,
}
"""Architectures, and the side of the images."""

FIXED = ("vit_", "deit_", "xcit_", "swin_", "mixer_")
"""Architectures that are made for a size of images."""


class _Stubs(MetaPathFinder, Loader):
    """Gives any module of torchvision, which timm imports for its data and for features."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Return a stub's spec."""
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] == "torchvision" else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        """Return a module that has every name."""
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: MagicMock(name=name)  # type: ignore[method-assign]
        module.__path__ = []
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing."""


def timm_models() -> dict[str, Maker]:
    """Return what makes each model and two samples."""
    sys.meta_path.insert(0, _Stubs())
    import timm

    def made(name: str, side: int) -> Maker:
        def make() -> tuple[nn.Module, torch.Tensor]:
            more = {"img_size": side} if name.startswith(FIXED) else {}
            model = timm.create_model(name, num_classes=10, exportable=True, **more)
            if not model.get_classifier().weight.any():  # some heads begin with zeros
                nn.init.normal_(model.get_classifier().weight, std=0.02)
            return model, torch.rand(2, 3, side, side)

        return make

    return {name: made(name, side) for name, side in TIMM.items()}


def main() -> None:
    """Export everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("transformers", "timm"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    beside = args.folder / "refused.json"
    refused = json.loads(beside.read_text()) if beside.exists() else {}
    models = transformers_models() if args.what == "transformers" else timm_models()
    for name, make in models.items():
        if not fnmatch.fnmatch(name, args.only):
            continue
        for exporter, opsets in ((False, TORCHSCRIPT), (True, DYNAMO)):
            lists = [opsets, opsets[::-1]] if args.what == "transformers" else [opsets[::-1]]
            for order in lists:
                found = exported(args.folder, name, make, dynamo=exporter, opsets=order)
                if isinstance(found, str):
                    refused[f"{name}.{'dynamo' if exporter else 'torchscript'}"] = found
                    break
        beside.write_text(json.dumps(refused, indent=1))


def exported(folder: Path, name: str, make: Maker, *, dynamo: bool, opsets: tuple[int, ...]) -> Path | str:
    """Export a model at the first opset that works; return the file, or why there is none."""
    why = ""
    for opset in opsets:
        path = folder / f"{name}.{'dynamo' if dynamo else 'torchscript'}{opset}.onnx"
        if path.exists():
            return path
        try:
            signal.alarm(SECONDS)
            torch.manual_seed(0)
            model, x = make()
            model.eval()
            write(path, model, x, dynamo=dynamo, opset=opset)
        except BaseException as error:  # exporters raise whatever they like
            path.unlink(missing_ok=True)
            said = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(str(error).split()))
            why = f"{type(error).__name__}: {said[:120]}"
            if isinstance(error, KeyboardInterrupt | TimeoutError):
                break
            continue
        finally:
            signal.alarm(0)
        np.savez(path.with_suffix(".npz"), **reference(model, x))
        print(path.name, path.stat().st_size, flush=True)
        return path
    print(name, "dynamo" if dynamo else "torchscript", why, flush=True)
    return why


def write(path: Path, model: nn.Module, x: torch.Tensor, *, dynamo: bool, opset: int) -> None:
    """Write the model with an open batch, at exactly this opset."""
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"], "opset_version": opset}
    if dynamo:
        batch = ({0: torch.export.Dim("batch", min=1, max=64)},)
        torch.onnx.export(
            model, (x,), str(path), dynamo=True, dynamic_shapes=batch, external_data=False, verbose=False, **names
        )
    else:
        axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(model, (x,), str(path), dynamo=False, dynamic_axes=axes, **names)
    import onnx

    written = {each.domain: each.version for each in onnx.load(path).opset_import}[""]
    if written != opset:
        raise ValueError(f"it wrote opset {written}")


def reference(model: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Return samples, a cotangent, torch's gradient in float64, and how far its float32 is from that."""
    cotangent = torch.randn(len(x), model(x).shape[1], generator=torch.Generator().manual_seed(1))

    def gradient(net: nn.Module, kind: torch.dtype) -> torch.Tensor:
        given = x.detach().clone().to(kind).requires_grad_()
        (net(given) * cotangent.to(kind)).sum().backward()
        return given.grad

    narrow = gradient(model, torch.float32).double()
    try:
        wide = gradient(copy.deepcopy(model).double(), torch.float64)
    except RuntimeError:  # a float32 constant in the code
        wide = narrow
    error = float((narrow - wide).norm() / wide.norm())
    arrays = {"x": x, "cotangent": cotangent, "gradient": wide}
    return {key: value.detach().numpy() for key, value in arrays.items()} | {"float32": np.array(error)}


def _stopped(*_: Any) -> Iterator[None]:
    raise TimeoutError(f"over {SECONDS} s")


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _stopped)
    main()
