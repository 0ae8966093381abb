"""Train the sample model and make its FGSM versions: digits_cnn.onnx, digits_fgsm.npz and digits_test_fgsm.npz.

The demo's files are written, too: a copy of the model, and all images as levels from 0 to 16. Run it as
`python samples/train_digits.py`. Needs torch, onnx, onnxruntime and scikit-learn; takes ten seconds.
"""

import shutil
import warnings
from pathlib import Path

import digits
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from cloakonnx.files import write_npz

HERE = Path(__file__).parent
DEMO = HERE.parent / "cloakonnx" / "demo"
SEED = 0
EPOCHS = 30
NOISE = 0.05
BATCH_SIZE = 64
EPS = 2 / 16  # two grey levels of the sixteen


def build_net() -> nn.Sequential:
    """Return the untrained net: two convolutions, then two Gemms with 64 features between them."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(64, 10),
    )


def fit(net: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Train the net in place: Adam, a one-cycle learning rate, Gaussian noise on the pixels."""
    steps = -(-len(images) // BATCH_SIZE)
    optimiser = torch.optim.Adam(net.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, epochs=EPOCHS, steps_per_epoch=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH_SIZE):
            optimiser.zero_grad()
            noisy = images[chosen] + NOISE * torch.randn_like(images[chosen])
            functional.cross_entropy(net(noisy), labels[chosen]).backward()
            optimiser.step()
            schedule.step()


def fgsm(net: nn.Module, images: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the images after one step of EPS along the sign of the loss's gradient, clipped to [0, 1]."""
    x = torch.from_numpy(images).requires_grad_()
    functional.cross_entropy(net(x), torch.from_numpy(labels), reduction="sum").backward()
    assert x.grad is not None
    adversarial: NDArray[np.float32] = np.clip(images + np.float32(EPS) * np.sign(x.grad.numpy()), 0, 1)
    return adversarial


def export(net: nn.Module, path: Path) -> None:
    """Write the net as ONNX, opset 17, with a dynamic batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net,
            (torch.zeros(1, 1, 8, 8),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )


def accuracy(path: Path, images: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the share of the images that the exported model classifies as labelled, in ONNX Runtime."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": images})
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def main() -> None:
    """Train, export, attack, save and print the accuracies."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    images, labels = digits.training_arrays()
    net = build_net()
    fit(net, torch.from_numpy(images), torch.from_numpy(labels))
    net.eval()
    model = HERE / "digits_cnn.onnx"
    export(net, model)
    shutil.copy(model, DEMO / model.name)
    levels, classes = load_digits(return_X_y=True)
    write_npz(DEMO / "digits.npz", {"x": levels.reshape(-1, 1, 8, 8).astype(np.uint8), "y": classes.astype(np.uint8)})
    scored = slice(digits.SCORE_COUNT)
    for name, x, y in (
        ("digits_fgsm.npz", images[scored], labels[scored]),
        ("digits_test_fgsm.npz", *digits.test_arrays()),
    ):
        adversarial = fgsm(net, x, y)
        np.savez_compressed(HERE / name, x=adversarial, y=y)
        print(f"{name}: {len(x)} images, clean {accuracy(model, x, y):.4f}, FGSM {accuracy(model, adversarial, y):.4f}")


if __name__ == "__main__":
    main()
