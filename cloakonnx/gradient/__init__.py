"""Gradients of ONNX classifiers, as ONNX graphs that any execution provider runs."""
