"""What a formula leaves open and implementations settle in several ways: none is wrong, each is declared.

`CONVENTIONS` names each, the value that the cases follow, and the others, each as a change of the text. Where the text
comes to one (lookouts.py) the case names it and holds the answers of the other values, for every combination where
several meet, of operations and of blocks (`OF_OPERATION`). A model comes to them too: its cases name what they meet and
hold no other answers, so that who declares another value is not asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from golden.changes import Change

Changes = tuple[Change, ...]

_SOFTMAX = "P, softmax_back = softmax(s)"
_NO_KEY = '(s == float("-inf")).all(axis=-1, keepdims=True)'
_SCORES = (
    "s = q @ swap(k) / sqrt(D)",
    "s = q @ swap(k) / sqrt(D) + r[:, place]",
    "s, soft_cap_back = soft_cap(q @ swap(k) / sqrt(D), cap=cap)",
)
_USES = (
    "dk = swap(ds) @ q / sqrt(D)",
    "dbias = sum(ds.reshape(-1, H, T, S), axis=0, keepdims=False)",
    "dproduct = soft_cap_back(ds)",
)
_CAUSAL = 's = where(arange(S) <= arange(T)[:, None] + S - T, s, float("-inf"))'
_REDUCED = 'return total(losses) / (max(1, count) if reduction == "mean" else 1), reduced_back'
_POOLED = "return sum(where(counted, h, 0), axis=-2, keepdims=False) / count, mean_pool_back"
_RELU, _RELU_BACK = "return where(x > 0, x, 0), relu_back", "return where(x > 0, dy, 0)"
_SOFT = "losses = -sum(targets * where(nothing, 0, log_p), keepdims=False)"
_SOFT_BACK = "return log_softmax_back(-w * targets), -w * log_p"
_ADAM = "return corrected_m / (sqrt(corrected_v) + eps), m, v"
_CLIPPED = "return norm, [where(norm <= clip, x, x * factor) for x in g]"
_KEPT = "kept = descending(logits)[:top_k]"
_SHARES = "p, _ = softmax(logits[kept] / temperature)"
_CUT = "kept, p = kept[: n + 1], p[: n + 1] / total(p[: n + 1])"
_NAN = 'float("nan")'


def _of_attention(lines: Mapping[str, str]) -> Changes:
    """The same lines in every attention that forms its own scores. The line that forms them, and the first that uses
    their gradient, is each one's own."""
    names = ("attention.attention", "attention.biased_attention", "soft_cap.capped_attention")
    functions = zip(names, _SCORES, _USES, strict=True)
    return tuple(
        Change(name, {old.format(s=s, ds=ds): new.format(s=s, ds=ds) for old, new in lines.items()})
        for name, s, ds in functions
    )


def _lines(*lines: str) -> str:
    return "\n".join(lines)


def _one(function: str, lines: Mapping[str, str]) -> Changes:
    return (Change(function, lines),)


def _soft_targets(dtargets: str, *value: str) -> Changes:
    """Targets that are taken to sum to 1 where they do not: their gradient is p - t."""
    whole = _lines(_SOFT, "whole = sum(targets) == 1", *value)
    dx = "where(whole, log_softmax_back(-w * targets), w * (exp(log_p) - targets))"
    return _one("cross_entropy.soft_cross_entropy", {_SOFT: whole, _SOFT_BACK: f"return {dx}, {dtargets}"})


def _relu(at_zero: str) -> Changes:
    return _one(
        "activation.relu",
        {
            _RELU: f"return where(x > 0, x, where(x == 0, {at_zero.format('x')}, 0)), relu_back",
            _RELU_BACK: f"return where(x > 0, dy, where(x == 0, {at_zero.format('dy')}, 0))",
        },
    )


# name -> its values, the first of which the cases follow, and what each changes in the text
CONVENTIONS: dict[str, dict[str, Changes]] = {
    "sinusoidal_layout": {
        "interleaved": (),
        "halves": _one(
            "position.sinusoidal",
            {"pairs = stack([even, odd], axis=-1)": "pairs = concatenate([even, odd], axis=-1)"},
        ),
    },
    "causal_alignment": {
        "bottom-right": (),
        "top-left": tuple(
            Change(name, {_CAUSAL: 's = where(arange(S) <= arange(T)[:, None], s, float("-inf"))'})
            for name in ("attention.attention", "attention.masked")
        ),
    },
    "empty_row": {  # attention without a key: zeros; NaN; the mean of all values, where every score is replaced by one
        # number; the same where a number is added that is so large that the scores vanish beside it
        "zeros": (),
        "nan": _of_attention({_SOFTMAX: f"s = where({_NO_KEY}, {_NAN}, s)\n{_SOFTMAX}"}),
        "mean": _of_attention(
            {
                _SOFTMAX: f"no_key = {_NO_KEY}\ns = where(no_key, 0, s)\n{_SOFTMAX}",
                "{ds}": "ds = where(no_key, 0, ds)\n{ds}",
            }
        ),
        "mean-added": _of_attention(
            {
                "{s}": "{s}\nunmasked = s",
                _SOFTMAX: f"s = where({_NO_KEY}, unmasked - constant(unmasked), s)\n{_SOFTMAX}",
            }
        ),
    },
    "empty_softmax": {  # a row of only -inf
        "zeros": (),
        "nan": _one(
            "softmax.softmax", {"p = e / (Z + is_zero(Z))": f"p = where(Z == 0, {_NAN}, e / (Z + is_zero(Z)))"}
        ),
    },
    "empty_mean": {  # of no place, of no token
        "zero": (),
        "nan": (
            Change(
                "cross_entropy.reduced",
                {
                    _REDUCED: _lines(
                        'if reduction == "mean" and count == 0:',
                        f"    return total(losses) * {_NAN}, reduced_back",
                        _REDUCED,
                    )
                },
            ),
            Change(
                "contrastive.mean_pool",
                {
                    _POOLED: _lines(
                        "pooled = sum(where(counted, h, 0), axis=-2, keepdims=False) / count",
                        f"return where(counted.any(axis=-2), pooled, {_NAN}), mean_pool_back",
                    )
                },
            ),
        ),
    },
    "soft_targets": {
        "any-sum": (),
        "sum-to-one": _soft_targets(
            "where(whole, -w * log_p, -w * logits)",
            "m = top(logits)",
            "fused = m + log(sum(exp(logits - m))) - sum(targets * logits)",
            "losses = where(whole[..., 0], losses, fused[..., 0])",
        ),
        "sum-to-one-in-gradient": _soft_targets("-w * log_p"),
    },
    "relu_at_zero": {"0": (), "1": _relu("{}"), "half": _relu("{} / 2")},
    "sgd_velocity": {
        "of-gradients": (),
        "rate-inside": _one(
            "update.sgd",
            {"v = momentum * v + g": "v = momentum * v + lr * g", "return p - lr * v, v": "return p - v, v"},
        ),
        "rate-inside-negative": _one(
            "update.sgd",
            {"v = momentum * v + g": "v = momentum * v - lr * g", "return p - lr * v, v": "return p + v, v"},
        ),
    },
    "sgd_damping": {
        "none": (),
        "one-minus-momentum": _one(
            "update.sgd", {"v = momentum * v + g": "g = (1 - momentum) * g\nv = momentum * v + g"}
        ),
    },
    "adam_eps": {
        "outside-root": (),
        "inside-root": _one("update._adam", {_ADAM: "return corrected_m / sqrt(corrected_v + eps), m, v"}),
        "before-correction": _one(
            "update._adam",
            {_ADAM: "return corrected_m * sqrt(1 - power(beta2, step)) / (sqrt(v) + eps), m, v"},
        ),
    },
    "decay_order": {
        "before-step": (),
        "after-step": _one(
            "update.adamw",
            {"return p * (1 - lr * decay) - lr * change, m, v": "return (p - lr * change) * (1 - lr * decay), m, v"},
        ),
    },
    "clip_eps": {
        "none": (),
        "1e-6": _one(
            "update.clip_by_global_norm",
            {
                "norm = sqrt(squares)": _lines("norm = sqrt(squares)", "larger = norm + ratio(1, 10**6)"),
                "factor = 1 if norm <= clip else clip / norm": "factor = 1 if larger <= clip else clip / larger",
                _CLIPPED: _CLIPPED.replace("norm <=", "larger <="),
            },
        ),
    },
    "clip_infinite": {
        "by-formula": (),
        "all-nan": _one(
            "update.clip_by_global_norm",
            {
                "norm = sqrt(squares)": _lines(
                    "norm = sqrt(squares)", 'if not norm < float("inf"):', f"    return norm, [x * {_NAN} for x in g]"
                )
            },
        ),
    },
    "warmup_is_all": {  # the one step that is both the end of the warm-up and of all
        "floor": (),
        "peak": _one("update.warmup_cosine", {"return min_lr": "return max_lr if step == total == warmup else min_lr"}),
    },
    "top_k_ties": {
        "lower-index": (),
        "higher-index": _one(
            "sampling.choose",
            {
                _KEPT: _lines(
                    "kept = sorted(range(len(logits)), key=lambda i: (-logits[i], -i))[:top_k]",
                    "kept = sorted(kept, key=lambda i: (-logits[i], i))",
                )
            },
        ),
        "all": _one(
            "sampling.choose",
            {
                _KEPT: _lines(
                    "kept = descending(logits)",
                    "if top_k is not None:",
                    "    kept = [i for i in kept if logits[i] >= logits[kept[:top_k][-1]]]",
                )
            },
        ),
    },
    "top_p_ties": {
        "lower-index": (),
        "higher-index": _one(
            "sampling.choose", {_SHARES: f"kept = sorted(kept, key=lambda i: (-logits[i], -i))\n{_SHARES}"}
        ),
    },
}

BY_HAND = {"sum-to-one-in-gradient"}  # a gradient that is declared, and not that of the value

OF_OPERATION: dict[str, tuple[str, ...]] = {
    "sinusoidal": ("sinusoidal_layout",),
    "attention": ("causal_alignment", "empty_row"),
    "relative_attention": ("causal_alignment", "empty_row"),
    "capped_attention": ("causal_alignment", "empty_row"),
    "normed_attention": ("causal_alignment", "empty_row"),
    "sink_attention": ("causal_alignment",),
    "attention_with_lse": ("causal_alignment",),
    "sliding_window_attention": ("empty_row",),
    "packed_attention": ("empty_row",),
    "self_attention": ("empty_row",),
    "cross_attention": ("empty_row",),
    "grouped_attention": ("empty_row",),
    "softmax": ("empty_softmax",),
    "cross_entropy": ("empty_mean",),
    "smoothed_cross_entropy": ("empty_mean",),
    "mean_pool": ("empty_mean",),
    "soft_cross_entropy": ("soft_targets",),
    "relu": ("relu_at_zero",),
    "switch_layer": ("relu_at_zero",),
    "sgd": ("sgd_velocity", "sgd_damping"),
    "adam": ("adam_eps",),
    "adamw": ("adam_eps", "decay_order"),
    "clip_by_global_norm": ("clip_eps", "clip_infinite"),
    "warmup_cosine": ("warmup_is_all",),
    "sample": ("top_k_ties", "top_p_ties"),
}


def changes(values: Mapping[str, str]) -> list[Change]:
    """What these values of conventions change in the text. Those at the end of the table first: they put lines in
    front of lines that others exchange."""
    return [change for name in reversed(CONVENTIONS) if name in values for change in CONVENTIONS[name][values[name]]]


def followed(met: set[str]) -> dict[str, str]:
    """The conventions met and the values that the cases follow, in the order of the table."""
    return {name: next(iter(values)) for name, values in CONVENTIONS.items() if name in met}


def others(names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Every other combination of values: "a=b,c=d" -> {"a": "b", "c": "d"}."""
    found = {}
    for values in itertools.product(*(CONVENTIONS[name] for name in names)):
        changed = {
            name: value for name, value in zip(names, values, strict=True) if value != next(iter(CONVENTIONS[name]))
        }
        if changed:
            found[",".join(f"{name}={value}" for name, value in changed.items())] = changed
    return found
