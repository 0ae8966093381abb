"""The names of a model's classes, where its file has them: behind its label output, or in its metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod

import onnx
from onnx import TensorProto, numpy_helper

_KEYS = frozenset({"names", "classes", "labels", "class_names", "classnames", "class_labels", "id2label"})
"""Metadata in which exporters leave the names."""

_MOST = 1 << 20
"""Characters of metadata, and numbers, that are read."""

_WHOLE = frozenset({TensorProto.INT64, TensorProto.INT32})

_PAIR = re.compile(r"""\s*(\d{1,6})\s*:\s*(?:'([^'\\]*)'|"([^"\\]*)")\s*(?:,|$)""")


def class_names(proto: onnx.ModelProto, classes: int | None) -> tuple[str, ...] | None:
    """Return the names of the classes in the order of the scores; None where the file has none, or contradicts itself.

    Numbers are names, too, where a label output gives them and they do not count from 0.

    Args:
        proto: The model.
        classes: How many classes it has; None where that is not known.
    """
    in_graph = {names for names in _in_graph(proto.graph) if _is_whole(names, classes, numbers=True)}
    if in_graph:
        return in_graph.pop() if len(in_graph) == 1 else None
    texts = (entry.value for entry in proto.metadata_props if entry.key.lower() in _KEYS and len(entry.value) <= _MOST)
    found = {names for text in texts if (names := _listed(text)) is not None and _is_whole(names, classes)}
    return found.pop() if len(found) == 1 else None


def _is_whole(names: Sequence[str], classes: int | None, *, numbers: bool = False) -> bool:
    named = len(names) >= 2 and all(name.strip() for name in names) and len(set(names)) == len(names)
    are_places = list(names) == list(map(str, range(len(names)))) if numbers else all(map(str.isdigit, names))
    return named and classes in {None, len(names)} and not are_places


def _in_graph(graph: onnx.GraphProto) -> Iterator[tuple[str, ...]]:
    """Yield lists of text, or of numbers, by which a node turns the place of a class into its name."""
    constants = {each.name: each for each in graph.initializer if each.data_type == TensorProto.STRING}
    numbers = {each.name: each for each in graph.initializer if each.data_type in _WHOLE and _is_small(each)}
    for node in graph.node:
        given = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant" and "value" in given and given["value"].t.data_type == TensorProto.STRING:
            constants[node.output[0]] = given["value"].t
        elif node.op_type == "Constant" and "value_strings" in given:
            strings = given["value_strings"].strings
            constants[node.output[0]] = onnx.TensorProto(
                data_type=TensorProto.STRING, dims=[len(strings)], string_data=strings
            )
        elif node.op_type in {"ArrayFeatureExtractor", "Gather"} and node.input[0] in constants:
            values = numpy_helper.to_array(constants[node.input[0]]).reshape(-1).tolist()
            yield tuple(_text(value) for value in values)
        elif node.op_type == "ArrayFeatureExtractor" and node.input[0] in numbers:
            yield tuple(map(str, numpy_helper.to_array(numbers[node.input[0]]).reshape(-1).tolist()))
        elif node.domain == "ai.onnx.ml":
            yield from _of_attributes(given)


def _is_small(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location != TensorProto.EXTERNAL and prod(tensor.dims) <= _MOST


def _of_attributes(given: Mapping[str, onnx.AttributeProto]) -> Iterator[tuple[str, ...]]:
    for name in ("classlabels_strings", "classes_strings"):
        if name in given:
            yield tuple(map(_text, given[name].strings))
    for name in ("classlabels_ints", "classlabels_int64s"):
        if name in given:
            yield tuple(map(str, given[name].ints))
    if "keys_int64s" in given and "values_strings" in given:
        named = dict(zip(given["keys_int64s"].ints, map(_text, given["values_strings"].strings), strict=False))
        if sorted(named) == list(range(len(named))):
            yield tuple(named[key] for key in sorted(named))


def _listed(text: str) -> tuple[str, ...] | None:
    """Return the names that a text plainly lists: JSON, Python's dict of numbers and names, commas, or lines."""
    text = text.strip()
    if text.startswith("["):
        found = _parsed(text) or _parsed(text.replace("'", '"'))
        names = isinstance(found, list) and all(isinstance(name, str) for name in found)
        return tuple(found) if isinstance(found, list) and names else None
    if text.startswith("{"):
        found = _parsed(text)
        named = found if isinstance(found, dict) else _pairs(text[1:-1])
        numbered = {str(number): named.get(str(number)) for number in range(len(named))}
        names = all(isinstance(name, str) for name in numbered.values())
        return tuple(str(name) for name in numbered.values()) if names else None
    parts = [part.strip() for part in (text.splitlines() if "\n" in text else text.split(","))]
    return tuple(parts) if len(parts) > 1 else None


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _pairs(text: str) -> dict[str, str]:
    """Return the numbers and names of ``0: 'ant', 1: 'bee'``; nothing where there is anything else."""
    found, place = {}, 0
    while place < len(text.rstrip()):
        pair = _PAIR.match(text, place)
        if pair is None:
            return {}
        found[pair[1]] = pair[2] if pair[3] is None else pair[3]
        place = pair.end()
    return found


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
