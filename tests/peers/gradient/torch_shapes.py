"""The ONNX ops that make, move, cut or cast tensors, with torch functions."""

from __future__ import annotations

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch_registry import ints, op, tensor


@op("Constant")
def _constant(a, *_):
    if "value" in a:
        return tensor(a["value"], a["_dtype"])
    value = next(v for k, v in a.items() if k.startswith("value_"))
    return torch.tensor(value, dtype=a["_dtype"] if "float" in next(k for k in a if k.startswith("value_")) else None)


@op("ConstantOfShape")
def _constant_of_shape(a, shape):
    value = tensor(a["value"], a["_dtype"])[0] if "value" in a else torch.zeros((), dtype=a["_dtype"])
    return value.expand(ints(shape)).clone()


@op("Reshape")
def _reshape(a, x, shape):
    sizes = ints(shape)
    return x.reshape([x.shape[i] if s == 0 and not a.get("allowzero") else s for i, s in enumerate(sizes)])


@op("Flatten")
def _flatten(a, x):
    axis = a.get("axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


@op("Squeeze")
def _squeeze(a, x, axes=None):
    return x.squeeze() if axes is None else x.squeeze(tuple(ints(axes)))


@op("Unsqueeze")
def _unsqueeze(a, x, axes):
    for axis in sorted(ints(axes)):
        x = x.unsqueeze(axis)
    return x


@op("Slice")
def _slice(a, x, starts, ends, *rest):
    axes, steps = (*rest, None, None)[:2]
    axes = range(len(ints(starts))) if axes is None else ints(axes)
    steps = [1] * len(ints(starts)) if steps is None else ints(steps)
    for start, end, axis, step in zip(ints(starts), ints(ends), axes, steps, strict=True):
        n = x.shape[axis]
        x = x.index_select(axis, torch.tensor(range(n)[slice(start, end if end >= -n else None, step)]))
    return x


@op("Pad")
def _pad(a, x, pads, value=None, axes=None):
    axes = list(range(x.dim())) if axes is None else ints(axes)
    pads = ints(pads)
    full = [0] * (2 * x.dim())
    for i, axis in enumerate(axes):
        full[2 * (x.dim() - 1 - axis % x.dim())] = pads[i]
        full[2 * (x.dim() - 1 - axis % x.dim()) + 1] = pads[len(axes) + i]
    mode = a.get("mode", "constant")
    if mode == "constant":
        return F.pad(x, full, value=0.0 if value is None else float(value))
    for axis in range(x.dim()):
        place = 2 * (x.dim() - 1 - axis)
        taken = np.pad(np.arange(x.shape[axis]), full[place : place + 2], mode=mode)
        x = x.index_select(axis, torch.from_numpy(taken))
    return x


@op("Split")
def _split(a, x, split=None):
    axis = a.get("axis", 0)
    if split is None:
        return torch.tensor_split(x, a.get("num_outputs", a["_outputs"]), axis)
    return torch.split(x, ints(split), axis)


@op("Cast")
def _cast(a, x):
    kind = onnx.helper.tensor_dtype_to_np_dtype(a["to"])
    return x.to(a["_dtype"]) if kind.kind == "f" else x.to(torch.from_numpy(np.zeros(1, kind)).dtype)


@op("Gather")
def _gather(a, x, indices):
    axis = a.get("axis", 0) % x.dim()
    flat = torch.where(indices < 0, indices + x.shape[axis], indices).reshape(-1).long()
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@op("Expand")
def _expand(a, x, shape):
    return x * torch.ones(ints(shape), dtype=x.dtype)


@op("DepthToSpace")
def _depth_to_space(a, x):
    b = a["blocksize"]
    n, c, h, w = x.shape
    if a.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, b)
    return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


@op("ScatterND")
def _scatter_nd(a, x, indices, updates):
    places = tuple(indices.reshape(-1, indices.shape[-1]).T)
    values = updates.reshape(-1, *x.shape[indices.shape[-1] :])
    return x.index_put(places, values, accumulate=a.get("reduction", "none") == "add")


@op("ScatterElements")
def _scatter_elements(a, x, indices, updates):
    axis = a.get("axis", 0)
    places = torch.where(indices < 0, indices + x.shape[axis], indices)
    add = a.get("reduction", "none") == "add"
    return x.scatter_add(axis, places, updates) if add else x.scatter(axis, places, updates)


@op("Trilu")
def _trilu(a, x, k=0):
    return (torch.triu if a.get("upper", 1) else torch.tril)(x, int(k))
