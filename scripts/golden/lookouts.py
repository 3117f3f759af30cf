"""Where the text comes to a convention: the line in front of which one sees whether it decides."""

from __future__ import annotations

from golden.changes import Change

_MASKS = ("attention.attention", "attention.masked")
_WEIGHTS = ("attention.attention", "attention.biased_attention", "soft_cap.capped_attention")
_NORM, _MOMENTUM = "norm = sqrt(squares)", "v = momentum * v + g"
_TOO_LARGE = "not sqrt(squares) <= clip - ratio(1, 10**6)"
_IS_FINITE = 'sqrt(squares) < float("inf")'
_NO_KEY = '(s == float("-inf")).all(axis=-1).any()'
_ORDERED = "logits[descending(logits)[top_k {}]]"
_LAST = f"{_ORDERED.format('- 1')} == {_ORDERED.format('+ 0')}"

# name -> function, a line of it, and the condition, true just before that line, under which the convention decides
MET: dict[str, tuple[tuple[str, str, str], ...]] = {
    "sinusoidal_layout": (
        ("position.sinusoidal", "wavelengths = power(10000, ratio(arange(0, width, 2), width))", "True"),
    ),
    "causal_alignment": tuple((name, "if causal:", "causal and T != S") for name in _MASKS),
    "empty_row": tuple((name, "P, softmax_back = softmax(s)", _NO_KEY) for name in _WEIGHTS),
    "empty_softmax": (("softmax.softmax", "e = exp(x - top(x))", '(x == float("-inf")).all(axis=-1).any()'),),
    "empty_mean": (
        ("cross_entropy.reduced", 'if reduction == "none":', 'reduction == "mean" and count == 0'),
        ("contrastive.mean_pool", "count = like(counted.sum(axis=-2).clip(1), h)", "(~counted.any(axis=-2)).any()"),
    ),
    "soft_targets": (
        (
            "cross_entropy.soft_cross_entropy",
            "losses = -sum(targets * where(nothing, 0, log_p), keepdims=False)",
            "(sum(targets) != 1).any()",
        ),
    ),
    "relu_at_zero": (("activation.relu", "def relu_back(dy: Array) -> Array:", "(x == 0).any()"),),
    "sgd_velocity": (("update.sgd", _MOMENTUM, "True"),),
    "sgd_damping": (("update.sgd", _MOMENTUM, "True"),),
    "adam_eps": (("update._adam", "corrected_m = m / (1 - power(beta1, step))", "True"),),
    "decay_order": (("update.adamw", "change, m, v = _adam(g, m, v, step, beta1, beta2, eps)", "decay != 0"),),
    "clip_eps": (("update.clip_by_global_norm", _NORM, f"{_TOO_LARGE} and {_IS_FINITE}"),),
    "clip_infinite": (("update.clip_by_global_norm", _NORM, f"{_TOO_LARGE} and not {_IS_FINITE}"),),
    "warmup_is_all": (("update.warmup_cosine", "if step < warmup:", "step == total == warmup"),),
    "top_k_ties": (
        (
            "sampling.choose",
            "p, _ = softmax(logits[kept] / temperature)",
            f"top_k is not None and top_k < len(logits) and {_LAST}",
        ),
    ),
    "top_p_ties": (
        (
            "sampling.choose",
            "kept, p = kept[: n + 1], p[: n + 1] / total(p[: n + 1])",
            "n + 1 < len(p) and p[n + 1] == p[n]",
        ),
    ),
}
WITHIN = {"empty_softmax": "softmax"}  # of this operation alone: attention without a key has a convention of its own


def lookouts(operation: str) -> list[Change]:
    """The text with `meets(name, condition)` in front of these lines."""
    return [
        Change(function, {line: f"meets({name!r}, {condition})\n{line}"})
        for name, places in MET.items()
        if WITHIN.get(name, operation) == operation
        for function, line, condition in places
    ]
