"""Mistakes of kernels that lose digits which a bfloat16 does not hold, or change as little, so that no run in bfloat16
can find them; and one that shows at scores of -100 alone, of which a bfloat16 keeps too few digits for their softmax.

Every one of them dies in float32. Under the plan `narrow` sums over rows and by index may lose more.
"""

_OF_EAGER = frozenset({
    "matmul/gradient-in-bfloat16", "softmax/bfloat16-sum", "softmax/float16-sum", "softmax/fast-exponential",
    "softmax/dot-in-float16", "log_softmax/logarithm-in-bfloat16", "cross_entropy/total-in-bfloat16",
    "layer_norm/one-pass", "layer_norm/distance-from-new-mean", "layer_norm/distance-by-own-length",
    "layer_norm/distance-by-all",
    "layer_norm/fast-root", "layer_norm/gain-gradient-bfloat16", "rms_norm/bfloat16-squares",
    "rms_norm/rounded-before-gain", "attention/float16-weights", "attention/tf32-weights", "attention/bfloat16-output",
    "attention/maximum-from-zero", "attention/float16-scores", "attention/fast-exponential",
    "attention/score-gradient-in-bfloat16",
    "rotary_halves/bfloat16-table", "rotary_halves/recurrence-in-float32",
    "adamw/float16-squares", "adamw/bfloat16-moment", "adamw/float32-betas",
    "adamw/float32-corrections",
    "lstm/bfloat16-cell", "gelu_tanh/fast-tanh",
})  # fmt: skip
LOST_DIGITS = {
    "eager": _OF_EAGER,
    "narrow": _OF_EAGER | {"linear/bias-gradient-in-bfloat16", "embedding/bfloat16-sums"},
}
