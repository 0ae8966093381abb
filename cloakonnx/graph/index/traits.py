"""The properties of each op that gradients, folding, taps, heads and endings need, in one table.

An op that is not in the table has no trait. Names of other domains than the default one stand here too where no default
op has the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto


class Kind(Enum):
    """What an op does to the flow of gradients."""

    RULE = "differentiated"
    ZERO = "zero gradient"
    STOP = "no gradient: shapes, indices or booleans"


class Trait(Flag):
    """What an op may be.

    Attributes:
        NONE: Nothing of these.
        MOVES: No score changes, nor the order of the scores of one sample where they lie along one axis.
        VIEWS: The numbers stay as they are, in another shape or order.
        CARRIES_INTEGERS: A straight-through gradient follows integers through its first input, of Concat through each;
            to other ops they are indices.
        LINEAR: Linear in its first input, whatever the others are.
        PRODUCT: Linear in each input where the others are constant.
        SUM: Linear in all inputs together.
        AFFINE: Changes scale and offset of scores where all but one input is constant.
        QUANTISES: To integers or back.
        ONE_SIDED: Gives no logit of both signs; behind it the threshold of a single score is unknown.
        FINAL: Makes probabilities of logits at the end of a classifier.
        WEIGHTED: A layer whose weights multiply features.
        ACTIVATION: A tap belongs after it: an activation function or a normalisation as transformers have it.
        CARRIES: Hands activations on to the next layer: shapes, pools, sums and constant factors.
        CHANNELS_FIRST: Its features are along axis 1.
        FEATURES_LAST: Its features are along the last axis.
        KEEPS_SHAPE: The output has the shape of the input, although onnx's inference does not say so.
        RANDOM: Gives other numbers in each run.
        BODY: Control flow.
        SIZES: Reads shapes only, not values.
        GIVES_INDICES: The output is int64 whatever goes in.
        GIVES_BOOLEANS: The output is boolean.
        LAYOUT: All traits of an op that only changes shape or order.
    """

    NONE = 0
    MOVES = auto()
    VIEWS = auto()
    CARRIES_INTEGERS = auto()
    LINEAR = auto()
    PRODUCT = auto()
    SUM = auto()
    AFFINE = auto()
    QUANTISES = auto()
    ONE_SIDED = auto()
    FINAL = auto()
    WEIGHTED = auto()
    ACTIVATION = auto()
    CARRIES = auto()
    CHANNELS_FIRST = auto()
    FEATURES_LAST = auto()
    KEEPS_SHAPE = auto()
    RANDOM = auto()
    BODY = auto()
    SIZES = auto()
    GIVES_INDICES = auto()
    GIVES_BOOLEANS = auto()
    LAYOUT = MOVES | VIEWS | CARRIES_INTEGERS | LINEAR | CARRIES


class Scales(Enum):
    """How positive scales of the features move through an op; its rule is in graph/fold."""

    KEPT = "they commute"
    SLOPED = "they commute, the slope being constant"
    DROPPED = "as kept, outside of training"
    CAST = "as kept, between floating-point types"
    CLIPPED = "as kept, from 0 up"
    POOLED = "one a channel"
    REDUCED = "one along the axes that are reduced"
    RESIZED = "one a channel, which stays"
    RESHAPED = "with the elements, to another shape"
    TRANSPOSED = "with the axes"
    EXPANDED = "repeated"
    JOINED = "side by side"
    SLICED = "those that are taken"
    PADDED = "free ones around them"
    SUMMED = "the same in all inputs; constants absorb them"
    COMPARED = "the same in all inputs"
    MULTIPLIED = "a constant factor absorbs them or lets them pass"
    CONVOLVED = "the kernels absorb them"
    GEMM = "the matrix absorbs them"
    MATMUL = "the matrix absorbs them, along the last axis"
    NORMALISED = "scale, bias and mean absorb them"
    STANDARDISED = "none goes in; scale and bias make new ones"


@dataclass(frozen=True)
class Traits:
    """What is known of an op.

    Attributes:
        flags: Its traits.
        scales: How scales move through it, None where they do not.
        ends: For an op through which no gradient flows: why, and the latest version of the op of which that is known.
    """

    flags: Trait = Trait.NONE
    scales: Scales | None = None
    ends: tuple[Kind, int] | None = None


T = Trait
TRAITS: dict[str, Traits] = {
    "Abs": Traits(T.ONE_SIDED, scales=Scales.KEPT),
    "Add": Traits(T.AFFINE | T.SUM | T.CARRIES, scales=Scales.SUMMED),
    "And": Traits(T.GIVES_BOOLEANS, ends=(Kind.STOP, 7)),
    "ArgMax": Traits(T.GIVES_INDICES, ends=(Kind.ZERO, 13)),
    "ArgMin": Traits(T.GIVES_INDICES, ends=(Kind.ZERO, 13)),
    "Attention": Traits(T.FEATURES_LAST),
    "AveragePool": Traits(T.LINEAR | T.CARRIES | T.CHANNELS_FIRST, scales=Scales.POOLED),
    "BatchNormalization": Traits(T.CARRIES | T.CHANNELS_FIRST, scales=Scales.NORMALISED),
    "Bernoulli": Traits(T.RANDOM),
    "BiasGelu": Traits(T.ACTIVATION),
    "Cast": Traits(T.MOVES | T.CARRIES_INTEGERS | T.LINEAR | T.CARRIES, scales=Scales.CAST),
    "Celu": Traits(T.ACTIVATION),
    "Clip": Traits(T.ACTIVATION, scales=Scales.CLIPPED),
    "Concat": Traits(T.CARRIES | T.CARRIES_INTEGERS, scales=Scales.JOINED),
    "Constant": Traits(ends=(Kind.STOP, 25)),
    "ConstantOfShape": Traits(ends=(Kind.STOP, 25)),
    "Conv": Traits(T.PRODUCT | T.WEIGHTED | T.CHANNELS_FIRST, scales=Scales.CONVOLVED),
    "ConvInteger": Traits(T.WEIGHTED | T.CHANNELS_FIRST),
    "ConvTranspose": Traits(T.WEIGHTED | T.CHANNELS_FIRST, scales=Scales.CONVOLVED),
    "DeformConv": Traits(T.CHANNELS_FIRST),
    "DepthToSpace": Traits(T.CARRIES | T.CARRIES_INTEGERS | T.CHANNELS_FIRST),
    "DequantizeLinear": Traits(T.CARRIES_INTEGERS | T.QUANTISES),
    "Div": Traits(T.AFFINE, scales=Scales.MULTIPLIED),
    "Dropout": Traits(T.MOVES | T.LINEAR | T.CARRIES, scales=Scales.DROPPED),
    "DynamicQuantizeLinear": Traits(T.QUANTISES),
    "DynamicQuantizeMatMul": Traits(T.WEIGHTED | T.FEATURES_LAST),
    "Elu": Traits(T.ACTIVATION),
    "Embedding": Traits(T.FEATURES_LAST),
    "Equal": Traits(T.GIVES_BOOLEANS, ends=(Kind.STOP, 19)),
    "Exp": Traits(T.ONE_SIDED),
    "Expand": Traits(T.CARRIES_INTEGERS, scales=Scales.EXPANDED),
    "EyeLike": Traits(ends=(Kind.STOP, 22)),
    "FastGelu": Traits(T.ACTIVATION),
    "Flatten": Traits(T.LAYOUT, scales=Scales.RESHAPED),
    "FusedConv": Traits(T.WEIGHTED | T.ACTIVATION),
    "FusedGemm": Traits(T.WEIGHTED | T.FEATURES_LAST),
    "FusedMatMul": Traits(T.WEIGHTED | T.FEATURES_LAST),
    "Gather": Traits(T.CARRIES | T.CARRIES_INTEGERS),
    "com.microsoft.Gelu": Traits(T.KEEPS_SHAPE),
    "Gelu": Traits(T.ACTIVATION),
    "Gemm": Traits(T.PRODUCT | T.WEIGHTED | T.FEATURES_LAST, scales=Scales.GEMM),
    "GlobalAveragePool": Traits(T.LINEAR | T.CARRIES | T.CHANNELS_FIRST, scales=Scales.POOLED),
    "GlobalLpPool": Traits(T.CHANNELS_FIRST, scales=Scales.POOLED),
    "GlobalMaxPool": Traits(T.CARRIES | T.CHANNELS_FIRST, scales=Scales.POOLED),
    "Greater": Traits(T.GIVES_BOOLEANS, ends=(Kind.STOP, 13)),
    "GreaterOrEqual": Traits(T.GIVES_BOOLEANS, ends=(Kind.STOP, 16)),
    "GridSample": Traits(T.CHANNELS_FIRST),
    "GroupNormalization": Traits(T.CHANNELS_FIRST | T.KEEPS_SHAPE),
    "GRU": Traits(T.FEATURES_LAST),
    "Hardmax": Traits(ends=(Kind.ZERO, 13)),
    "HardSigmoid": Traits(T.ONE_SIDED | T.ACTIVATION),
    "HardSwish": Traits(T.ACTIVATION),
    "Identity": Traits(T.LAYOUT, scales=Scales.KEPT),
    "If": Traits(T.BODY),
    "InstanceNormalization": Traits(T.CHANNELS_FIRST, scales=Scales.STANDARDISED),
    "IsInf": Traits(ends=(Kind.STOP, 20)),
    "IsNaN": Traits(T.GIVES_BOOLEANS, ends=(Kind.STOP, 20)),
    "LayerNormalization": Traits(T.ACTIVATION | T.FEATURES_LAST, scales=Scales.STANDARDISED),
    "LeakyRelu": Traits(T.ACTIVATION, scales=Scales.KEPT),
    "Less": Traits(T.GIVES_BOOLEANS, ends=(Kind.STOP, 13)),
    "LessOrEqual": Traits(T.GIVES_BOOLEANS, ends=(Kind.STOP, 16)),
    "LogSoftmax": Traits(T.ONE_SIDED | T.FINAL),
    "Loop": Traits(T.BODY),
    "LpPool": Traits(T.CHANNELS_FIRST, scales=Scales.POOLED),
    "LRN": Traits(T.CHANNELS_FIRST),
    "LSTM": Traits(T.FEATURES_LAST),
    "MatMul": Traits(T.PRODUCT | T.WEIGHTED | T.FEATURES_LAST, scales=Scales.MATMUL),
    "MatMulInteger": Traits(T.WEIGHTED | T.FEATURES_LAST),
    "MatMulIntegerToFloat": Traits(T.WEIGHTED | T.FEATURES_LAST),
    "MatMulNBits": Traits(T.WEIGHTED | T.FEATURES_LAST),
    "Max": Traits(scales=Scales.COMPARED),
    "MaxPool": Traits(T.CARRIES | T.CARRIES_INTEGERS | T.CHANNELS_FIRST, scales=Scales.POOLED),
    "MaxUnpool": Traits(T.CHANNELS_FIRST),
    "Mean": Traits(scales=Scales.COMPARED),
    "Min": Traits(scales=Scales.COMPARED),
    "Mish": Traits(T.ACTIVATION),
    "Mul": Traits(T.AFFINE | T.PRODUCT | T.CARRIES, scales=Scales.MULTIPLIED),
    "Multinomial": Traits(T.RANDOM),
    "Neg": Traits(scales=Scales.KEPT),
    "NonMaxSuppression": Traits(ends=(Kind.STOP, 11)),
    "NonZero": Traits(T.GIVES_INDICES, ends=(Kind.STOP, 13)),
    "Not": Traits(ends=(Kind.STOP, 1)),
    "OneHot": Traits(ends=(Kind.STOP, 11)),
    "Or": Traits(ends=(Kind.STOP, 7)),
    "Pad": Traits(T.CARRIES | T.CARRIES_INTEGERS, scales=Scales.PADDED),
    "Pow": Traits(T.ONE_SIDED),
    "PRelu": Traits(T.ACTIVATION, scales=Scales.SLOPED),
    "QGemm": Traits(T.WEIGHTED | T.FEATURES_LAST),
    "QLinearConv": Traits(T.WEIGHTED | T.CHANNELS_FIRST),
    "QLinearMatMul": Traits(T.WEIGHTED | T.FEATURES_LAST),
    "QuantizeLinear": Traits(T.QUANTISES),
    "QuickGelu": Traits(T.ACTIVATION),
    "RandomNormal": Traits(T.RANDOM, ends=(Kind.STOP, 22)),
    "RandomNormalLike": Traits(T.RANDOM, ends=(Kind.STOP, 22)),
    "RandomUniform": Traits(T.RANDOM, ends=(Kind.STOP, 22)),
    "RandomUniformLike": Traits(T.RANDOM, ends=(Kind.STOP, 22)),
    "Range": Traits(ends=(Kind.STOP, 27)),
    "Reciprocal": Traits(T.ONE_SIDED),
    "ReduceL1": Traits(scales=Scales.REDUCED),
    "ReduceL2": Traits(scales=Scales.REDUCED),
    "ReduceMax": Traits(scales=Scales.REDUCED),
    "ReduceMean": Traits(T.LINEAR | T.CARRIES, scales=Scales.REDUCED),
    "ReduceMin": Traits(scales=Scales.REDUCED),
    "ReduceSum": Traits(T.LINEAR, scales=Scales.REDUCED),
    "Relu": Traits(T.ONE_SIDED | T.ACTIVATION, scales=Scales.KEPT),
    "ReorderOutput": Traits(T.ACTIVATION),
    "Reshape": Traits(T.LAYOUT, scales=Scales.RESHAPED),
    "Resize": Traits(T.CARRIES, scales=Scales.RESIZED),
    "RMSNormalization": Traits(T.ACTIVATION | T.FEATURES_LAST | T.KEEPS_SHAPE, scales=Scales.STANDARDISED),
    "RNN": Traits(T.FEATURES_LAST),
    "Scan": Traits(T.BODY),
    "Selu": Traits(T.ACTIVATION),
    "SequenceMap": Traits(T.BODY),
    "Shape": Traits(T.SIZES | T.GIVES_INDICES, ends=(Kind.STOP, 25)),
    "Sigmoid": Traits(T.FINAL | T.ACTIVATION),
    "SimplifiedLayerNormalization": Traits(T.ACTIVATION | T.FEATURES_LAST),
    "Size": Traits(T.SIZES | T.GIVES_INDICES, ends=(Kind.STOP, 25)),
    "SkipLayerNormalization": Traits(T.ACTIVATION | T.FEATURES_LAST),
    "Slice": Traits(T.CARRIES | T.CARRIES_INTEGERS, scales=Scales.SLICED),
    "Softmax": Traits(T.ONE_SIDED | T.FINAL),
    "Softplus": Traits(T.ONE_SIDED | T.ACTIVATION),
    "Softsign": Traits(T.ACTIVATION),
    "SpaceToDepth": Traits(T.CARRIES | T.CARRIES_INTEGERS | T.CHANNELS_FIRST),
    "Split": Traits(T.CARRIES | T.CARRIES_INTEGERS),
    "Sqrt": Traits(T.ONE_SIDED),
    "Squeeze": Traits(T.LAYOUT, scales=Scales.RESHAPED),
    "Sub": Traits(T.AFFINE | T.SUM | T.CARRIES, scales=Scales.SUMMED),
    "Sum": Traits(scales=Scales.SUMMED),
    "Swish": Traits(T.ACTIVATION),
    "Tanh": Traits(T.ACTIVATION),
    "ThresholdedRelu": Traits(T.ACTIVATION),
    "Tile": Traits(T.CARRIES_INTEGERS),
    "Transpose": Traits(T.LAYOUT, scales=Scales.TRANSPOSED),
    "Unsqueeze": Traits(T.LAYOUT, scales=Scales.RESHAPED),
    "Upsample": Traits(scales=Scales.RESIZED),
    "Xor": Traits(ends=(Kind.STOP, 7)),
}

_BITS = {op: traits.flags.value for op, traits in TRAITS.items()}


def has(op: str, trait: Trait) -> bool:
    """Whether an op has a trait, or one of several."""
    return bool(_BITS.get(op, 0) & trait.value)
