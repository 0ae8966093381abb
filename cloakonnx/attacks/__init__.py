"""Attacks on any ONNX classifier: white-box through the backward graph, black-box through scores.

What the other packages may use is named here.
"""

from cloakonnx.attacks.apgd import apgd, apgd_targeted
from cloakonnx.attacks.arithmetic import Norm
from cloakonnx.attacks.fab import fab_targeted
from cloakonnx.attacks.joining import Attacked
from cloakonnx.attacks.masked import MaskAnswer, MaskedVictim, Weights
from cloakonnx.attacks.noise import inside_ball, noise
from cloakonnx.attacks.pgd import fgsm, pgd
from cloakonnx.attacks.random import Stream
from cloakonnx.attacks.result import Adversarial, check_eps
from cloakonnx.attacks.session import AttackedPairs, AttackJob, attack
from cloakonnx.attacks.settings import ATTACKS, GRADIENT_FREE, Settings, run_attack
from cloakonnx.attacks.square import square
from cloakonnx.attacks.targets import TARGETS
from cloakonnx.attacks.victim import Counts, Victim
from cloakonnx.attacks.work import most_work, seconds_per_unit

__all__ = [
    "ATTACKS",
    "GRADIENT_FREE",
    "TARGETS",
    "Adversarial",
    "AttackJob",
    "Attacked",
    "AttackedPairs",
    "Counts",
    "MaskAnswer",
    "MaskedVictim",
    "Norm",
    "Settings",
    "Stream",
    "Victim",
    "Weights",
    "apgd",
    "apgd_targeted",
    "attack",
    "check_eps",
    "fab_targeted",
    "fgsm",
    "inside_ball",
    "most_work",
    "noise",
    "pgd",
    "run_attack",
    "seconds_per_unit",
    "square",
]
