"""Attacks on any ONNX classifier: white-box through the backward graph, black-box through scores.

Each attack is a dataclass of its settings. Importing this package registers those of ``methods/`` by name, and loads
only numpy.
"""

# ruff: noqa: I001 - registered in this order, which lists and messages keep
from importlib import import_module as _import
from pkgutil import iter_modules as _modules

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.methods.pgd import FGSM, PGD
from cloakonnx.attacks.methods.apgd import APGDCE, APGDDLR, APGDT
from cloakonnx.attacks.methods.fab import FABT
from cloakonnx.attacks.methods.square import Square
from cloakonnx.attacks.methods.noise import Noise

for _module in _modules([f"{path}/methods" for path in __path__]):  # a new attack is a new module
    _import(f"cloakonnx.attacks.methods.{_module.name}")

__all__ = ["APGDCE", "APGDDLR", "APGDT", "FABT", "FGSM", "PGD", "Attack", "Noise", "Square"]
