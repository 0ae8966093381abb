"""``python -m cloakonnx``."""

from cloakonnx.cli.main import main

main()
