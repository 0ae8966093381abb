"""Runs graphs with ONNX Runtime: provider choice and sessions."""
