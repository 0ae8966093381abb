"""Attacks on any ONNX classifier: white-box through the backward graph, black-box through scores."""
