"""Train a small CNN on the digits adversarially and write it as digits_robust.onnx: a control for the sanity flags.

Run it as `python samples/train_robust_digits.py`. Needs torch, onnx, onnxruntime and scikit-learn; takes a minute.
"""

import digits
import torch
from torch import Tensor, nn
from torch.nn import functional
from train_digits import HERE, accuracy, export

SEED = 0
EPOCHS = 60
BATCH_SIZE = 64
EPS = 2 / 16  # two grey levels of the sixteen
STEPS = 7


def build_net() -> nn.Sequential:
    """Return the untrained net: two convolutions, then two Gemms with 48 features between them."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(384, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )


def pgd(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the images after STEPS steps of EPS / 4 from a random start in the ball (Madry et al. 2018)."""
    x = (images + EPS * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(STEPS):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(net(x), labels, reduction="sum"), x)
        moved = x.detach() + EPS / 4 * gradient.sign()
        x = torch.minimum(torch.maximum(moved, images - EPS), images + EPS).clamp(0, 1)
    return x


def fit(net: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Train the net in place on the worst inputs that PGD finds: Adam, a one-cycle learning rate."""
    steps = -(-len(images) // BATCH_SIZE)
    optimiser = torch.optim.Adam(net.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, epochs=EPOCHS, steps_per_epoch=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH_SIZE):
            attacked = pgd(net, images[chosen], labels[chosen])
            optimiser.zero_grad()
            functional.cross_entropy(net(attacked), labels[chosen]).backward()
            optimiser.step()
            schedule.step()


def main() -> None:
    """Train, export and print the accuracies."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images, labels = digits.training_arrays()
    net = build_net()
    fit(net, torch.from_numpy(images), torch.from_numpy(labels))
    net.eval()
    model = HERE / "digits_robust.onnx"
    export(net, model)
    images, labels = digits.test_arrays()
    attacked = pgd(net, torch.from_numpy(images), torch.from_numpy(labels)).numpy()
    clean, robust = (accuracy(model, x, labels) for x in (images, attacked))
    print(f"{model.name}: {len(images)} images, clean {clean:.4f}, PGD-{STEPS} {robust:.4f}")


if __name__ == "__main__":
    main()
