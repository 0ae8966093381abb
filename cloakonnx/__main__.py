"""``python -m cloakonnx``."""

from cloakonnx.cli import main

main()
