"""The ONNX ops that are a network's layers, with torch functions: convolutions, pools, normalisations, Gemm, Resize."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch_registry import ints, op


def _same_pads(a, size, kernel, strides, dilations):
    before, after = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        half = total // 2 if a["auto_pad"] == "SAME_UPPER" else total - total // 2
        before.append(half)
        after.append(total - half)
    return before + after


def _pads(a, x, kernel):
    rank = len(kernel)
    strides = list(a.get("strides", [1] * rank))
    dilations = list(a.get("dilations", [1] * rank))
    pads = list(a.get("pads", [0] * 2 * rank))
    if a.get("auto_pad", "NOTSET").startswith("SAME"):
        pads = _same_pads(a, x.shape[2:], kernel, strides, dilations)
    torch_pads = [p for i in range(rank)[::-1] for p in (pads[i], pads[rank + i])]
    return strides, dilations, pads, torch_pads


@op("Conv")
def _conv(a, x, w, b=None):
    strides, dilations, _, pads = _pads(a, x, list(w.shape[2:]))
    f = (F.conv1d, F.conv2d, F.conv3d)[w.dim() - 3]
    return f(F.pad(x, pads), w, b, strides, 0, dilations, a.get("group", 1))


@op("ConvTranspose")
def _conv_transpose(a, x, w, b=None):
    rank = w.dim() - 2
    strides, dilations, pads, _ = _pads(a, x, list(w.shape[2:]))
    f = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    extra = list(a.get("output_padding", [0] * rank))
    y = f(x, w, b, strides, 0, 0, a.get("group", 1), dilations)
    # F's output_padding must be below the stride: pad here instead.
    crop = [p for i in range(rank)[::-1] for p in (-pads[i], extra[i] - pads[rank + i])]
    if any(extra) and b is not None:
        raise NotImplementedError
    return F.pad(y, crop)


@op("MaxPool")
def _max_pool(a, x):
    strides, dilations, _, pads = _pads(a, x, a["kernel_shape"])
    f = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.dim() - 3]
    return f(F.pad(x, pads, value=-torch.inf), a["kernel_shape"], strides, 0, dilations, bool(a.get("ceil_mode", 0)))


@op("AveragePool")
def _average_pool(a, x):
    kernel = a["kernel_shape"]
    strides, dilations, _, pads = _pads(a, x, kernel)
    assert set(dilations) == {1}
    f = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[x.dim() - 3]
    ceil = bool(a.get("ceil_mode", 0))
    if ceil:
        assert len(set(pads)) == 1
        return f(x, kernel, strides, pads[0], ceil, bool(a.get("count_include_pad", 0)))
    y = f(F.pad(x, pads), kernel, strides, 0, ceil)
    if a.get("count_include_pad", 0):
        return y
    return y / f(F.pad(torch.ones_like(x), pads), kernel, strides, 0, ceil)


@op("BatchNormalization")
def _batch_normalization(a, *x):
    data, scale, b, mean, var = x
    return F.batch_norm(data, mean, var, scale, b, False, 0.0, a.get("epsilon", 1e-5))


@op("Gemm")
def _gemm(a, x, w, c=None):
    x = x.T if a.get("transA", 0) else x
    w = w.T if a.get("transB", 0) else w
    y = a.get("alpha", 1.0) * (x @ w)
    return y if c is None else y + a.get("beta", 1.0) * c


@op("LRN")
def _lrn(a, x):
    return F.local_response_norm(x, a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0))


@op("LayerNormalization")
def _layer_normalization(a, x, scale, b=None):
    axis = a.get("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], scale, b, a.get("epsilon", 1e-5))


@op("InstanceNormalization")
def _instance_normalization(a, x, scale, b):
    return F.instance_norm(x, weight=scale, bias=b, eps=a.get("epsilon", 1e-5))


@op("GroupNormalization")
def _group_normalization(a, x, scale, b):
    return F.group_norm(x, a["num_groups"], scale, b, a.get("epsilon", 1e-5))


@op("Resize")
def _resize(a, x, roi=None, scales=None, sizes=None):
    size = [int(n * s) for n, s in zip(x.shape[2:], scales[2:], strict=True)] if sizes is None else ints(sizes)[2:]
    how = a.get("coordinate_transformation_mode", "half_pixel")
    if a.get("mode", "nearest") == "nearest":
        wanted = {"asymmetric": "floor", "half_pixel": "round_prefer_ceil"}  # what torch's two modes do
        assert a.get("nearest_mode", "round_prefer_floor") == wanted[how]
        return F.interpolate(x, size, mode="nearest" if how == "asymmetric" else "nearest-exact")
    mode = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}[x.dim()], "cubic": "bicubic"}[a["mode"]]
    return F.interpolate(x, size, mode=mode, align_corners=how == "align_corners")
