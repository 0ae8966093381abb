"""Compares a hardened digits model with its source, and with masks that remove as many features at random.

Run as `python samples/accuracy.py samples/digits_cnn.onnx HARDENED.onnx`, with what `cloakonnx apply` wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import cloakonnx as ck

SAMPLES = Path(__file__).parent
RANDOM_MASKS = 3


def main(source_path: str, hardened_path: str) -> None:
    """Print clean and static accuracy of both models and of the random-mask control."""
    source, hardened = ck.load(source_path), ck.load(hardened_path)
    mask = ck.masks(hardened)[0]
    print(f"{'':30}{'clean':>20}{'static FGSM 2/16':>22}")
    print_row("source", source)
    print_row("hardened", hardened)
    for seed in range(RANDOM_MASKS):
        weights = np.random.default_rng(seed).permutation(mask.weights)
        control = ck.apply(source, [ck.Mask(mask.tap, weights)])
        print_row(f"random mask, seed {seed}", control)
    print(
        "\nStatic: the adversarial images were made on the source and replayed. That is no claim of robustness: an\n"
        "attacker who knows the mask attacks the hardened model itself."
    )


def print_row(name: str, model: ck.Model) -> None:
    """Print one model's accuracies on the 599 test images and on their FGSM versions."""
    classifier = ck.Classifier(model, provider=ck.choose_provider("cpu"))
    cells = []
    for samples in (ck.Samples.script(f"{SAMPLES / 'digits.py'}:test"), SAMPLES / "digits_test_fgsm.npz"):
        cells.append(str(ck.accuracy(classifier, samples)))
    print(f"{name:30}{cells[0]:>20}{cells[1]:>22}")


if __name__ == "__main__":
    main(*sys.argv[1:])
