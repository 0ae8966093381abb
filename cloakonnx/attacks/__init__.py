"""Attacks on any ONNX classifier: white-box through the backward graph, black-box through scores.

Each attack is a dataclass of its settings; importing this package registers them by name, and loads only numpy.
"""

# ruff: noqa: I001 - registered in this order, which lists and messages keep
from cloakonnx.attacks.pgd import FGSM, PGD
from cloakonnx.attacks.apgd import APGDCE, APGDDLR, APGDT
from cloakonnx.attacks.fab import FABT
from cloakonnx.attacks.square import Square
from cloakonnx.attacks.noise import Noise

__all__ = ["APGDCE", "APGDDLR", "APGDT", "FABT", "FGSM", "PGD", "Noise", "Square"]
