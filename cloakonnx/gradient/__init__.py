"""Gradients of ONNX classifiers, as ONNX graphs that any execution provider runs."""

from cloakonnx.gradient.differentiate import INPUT, GradientGraph, differentiate
from cloakonnx.gradient.double import to_double
from cloakonnx.gradient.forward import Preprocessing
from cloakonnx.gradient.losses import DLR_CLASSES, Loss

__all__ = ["DLR_CLASSES", "INPUT", "GradientGraph", "Loss", "Preprocessing", "differentiate", "to_double"]
