"""Reads and edits ONNX models as protobuf; never runs one."""
