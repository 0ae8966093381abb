"""The command line: one module a verb; it parses, calls the library and prints."""

from cloakonnx.cli.main import main

__all__ = ["main"]
