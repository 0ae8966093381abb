"""A standing fuzzer over everything that cloakonnx reads: `make fuzz`. pytest collects nothing here."""
