"""cloakonnx."""
