"""Types that public functions return or take, beside those at the top of the package."""

from cloakonnx.attacks.attack import Attacked
from cloakonnx.attacks.ball import Norm
from cloakonnx.attacks.pairs import AttackedPairs
from cloakonnx.attacks.presets import PlanSettings
from cloakonnx.attacks.targets import TargetsLike
from cloakonnx.classifier.activations import Activations
from cloakonnx.classifier.answer import Answer
from cloakonnx.classifier.doubts import Seen
from cloakonnx.classifier.given import ModelLike
from cloakonnx.classifier.sessions import Asked, Sample, Sessions
from cloakonnx.classifier.task import SingleLabel
from cloakonnx.data.batch import Batch, PairBatch
from cloakonnx.data.given import Given
from cloakonnx.data.layout import Arrangement
from cloakonnx.data.samples import Dataset, Fits, FittedPairs, SamplesLike
from cloakonnx.data.sources import Source
from cloakonnx.entries import At
from cloakonnx.evaluation.estimate import Estimate
from cloakonnx.evaluation.gates import Decision, Gate
from cloakonnx.evaluation.per_sample import PerSample
from cloakonnx.evaluation.results import AtEps, DataRecord, MaskRecord, ModelRecord
from cloakonnx.evaluation.samples import TurnedSamples
from cloakonnx.evaluation.sanity.flags import Flag, Sanity
from cloakonnx.evaluation.sweeps.record import Adaptive, Attacks, Point, Scored, Twins
from cloakonnx.evaluation.verdict import Verdict
from cloakonnx.evaluation.verification.attestation import AttestedMask
from cloakonnx.evaluation.verification.verify import Check
from cloakonnx.gradient.differentiate import GradientGraph
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.diff import Difference
from cloakonnx.graph.file.model import Buffer, Piece, Span, Stamp
from cloakonnx.graph.fold.fold import MaskFate
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.masks.given import HasMasks, MasksLike
from cloakonnx.pipeline.harden import Hardened, Observer, StageRun
from cloakonnx.pipeline.settings import HardenOptions, Method
from cloakonnx.preprocessing import Layout, Step
from cloakonnx.runtime.session import Value
from cloakonnx.scoring.analysis import SampleSet, TapScores
from cloakonnx.scoring.analyze import PairSource
from cloakonnx.selection.greedy.select import GreedyProgress
from cloakonnx.selection.learn.progress import Progress
from cloakonnx.selection.learn.recipe import Granularity, LossName
from cloakonnx.selection.topk import Amount
from cloakonnx.statistics import Accuracy, Interval, Paired

__all__ = [
    "Accuracy",
    "Activations",
    "Adaptive",
    "Amount",
    "Answer",
    "Arrangement",
    "Asked",
    "At",
    "AtEps",
    "Attacked",
    "AttackedPairs",
    "Attacks",
    "AttestedMask",
    "Batch",
    "Buffer",
    "Check",
    "DataRecord",
    "Dataset",
    "Decision",
    "Difference",
    "Estimate",
    "Fits",
    "FittedPairs",
    "Flag",
    "Gate",
    "Given",
    "GradientGraph",
    "Granularity",
    "GreedyProgress",
    "HardenOptions",
    "Hardened",
    "HasMasks",
    "Index",
    "Interval",
    "Layout",
    "Loss",
    "LossName",
    "MaskFate",
    "MaskRecord",
    "MasksLike",
    "Method",
    "ModelLike",
    "ModelRecord",
    "Norm",
    "Observer",
    "PairBatch",
    "PairSource",
    "Paired",
    "PerSample",
    "Piece",
    "PlanSettings",
    "Point",
    "Progress",
    "Sample",
    "SampleSet",
    "SamplesLike",
    "Sanity",
    "Scored",
    "Seen",
    "Sessions",
    "SingleLabel",
    "Source",
    "Span",
    "StageRun",
    "Stamp",
    "Step",
    "TapScores",
    "TargetsLike",
    "TurnedSamples",
    "Twins",
    "Value",
    "Verdict",
]
