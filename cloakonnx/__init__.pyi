from cloakonnx import attacks as attacks
from cloakonnx.attacks.attack import Attacked as Attacked
from cloakonnx.attacks.attack import attack as attack
from cloakonnx.classifier.classifier import Classifier as Classifier
from cloakonnx.classifier.declared import input_shape as input_shape
from cloakonnx.data.samples import Dataset as Dataset
from cloakonnx.data.samples import FittedPairs as FittedPairs
from cloakonnx.data.sources import open_script as open_script
from cloakonnx.data.sources import open_source as open_source
from cloakonnx.engine.batches import Engine as Engine
from cloakonnx.engine.batches import InProcess as InProcess
from cloakonnx.engine.threads import Threads as Threads
from cloakonnx.errors import CheckError as CheckError
from cloakonnx.errors import CloakError as CloakError
from cloakonnx.evaluation.accuracy import accuracy as accuracy
from cloakonnx.evaluation.estimate import Estimate as Estimate
from cloakonnx.evaluation.evaluate import evaluate as evaluate
from cloakonnx.evaluation.evaluation import Evaluation as Evaluation
from cloakonnx.evaluation.evaluation import load_evaluation as load_evaluation
from cloakonnx.evaluation.gates import (
    Decision as Decision,
)
from cloakonnx.evaluation.gates import (
    Gate as Gate,
)
from cloakonnx.evaluation.gates import (
    check_gates as check_gates,
)
from cloakonnx.evaluation.gates import (
    parse_gate as parse_gate,
)
from cloakonnx.evaluation.samples import load_samples as load_samples
from cloakonnx.evaluation.sweeps.record import Sweep as Sweep
from cloakonnx.evaluation.sweeps.record import load_sweep as load_sweep
from cloakonnx.evaluation.sweeps.sweep import sweep as sweep
from cloakonnx.evaluation.verification.attestation import (
    Attestation as Attestation,
)
from cloakonnx.evaluation.verification.attestation import (
    attest as attest,
)
from cloakonnx.evaluation.verification.attestation import (
    load_attestation as load_attestation,
)
from cloakonnx.evaluation.verification.certificates import load_certificate as load_certificate
from cloakonnx.evaluation.verification.signing import SigningKey as SigningKey
from cloakonnx.evaluation.verification.signing import VerificationKey as VerificationKey
from cloakonnx.evaluation.verification.signing import load_signing_key as load_signing_key
from cloakonnx.evaluation.verification.signing import load_verification_key as load_verification_key
from cloakonnx.evaluation.verification.verify import Verification as Verification
from cloakonnx.evaluation.verification.verify import verify as verify
from cloakonnx.graph.file.diff import Difference as Difference
from cloakonnx.graph.file.diff import diff as diff
from cloakonnx.graph.file.model import Model as Model
from cloakonnx.graph.file.model import load as load
from cloakonnx.graph.fold.fold import MaskFate as MaskFate
from cloakonnx.graph.fold.fold import fold_file as fold_file
from cloakonnx.graph.fold.fold import folded as folded
from cloakonnx.graph.fold.recorded import read_masks as read_masks
from cloakonnx.graph.masks.harden import harden_file as harden_file
from cloakonnx.graph.masks.harden import hardened as hardened
from cloakonnx.graph.masks.harden import strip_file as strip_file
from cloakonnx.graph.masks.mask import Mask as Mask
from cloakonnx.graph.masks.strip import stripped as stripped
from cloakonnx.graph.masks.taps import Tap as Tap
from cloakonnx.graph.masks.taps import find_tap as find_tap
from cloakonnx.graph.masks.taps import list_taps as list_taps
from cloakonnx.pipeline.harden import Hardened as Hardened
from cloakonnx.pipeline.harden import harden as harden
from cloakonnx.preprocessing import Preprocessing as Preprocessing
from cloakonnx.reporting.page import report_html as report_html
from cloakonnx.runtime.provider import Provider as Provider
from cloakonnx.runtime.provider import choose_provider as choose_provider
from cloakonnx.scoring.analysis import Analysis as Analysis
from cloakonnx.scoring.analysis import load_analysis as load_analysis
from cloakonnx.scoring.analyze import analyze as analyze
from cloakonnx.selection.greedy.select import select_greedy as select_greedy
from cloakonnx.selection.learn.learn import learn as learn
from cloakonnx.selection.learn.recipe import Recipe as Recipe
from cloakonnx.selection.topk import Count as Count
from cloakonnx.selection.topk import Share as Share
from cloakonnx.selection.topk import Threshold as Threshold
from cloakonnx.selection.topk import select as select
from cloakonnx.statistics import Accuracy as Accuracy
