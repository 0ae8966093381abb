"""The attacks, a module a method; :mod:`cloakonnx.attacks` imports every module of this folder."""
