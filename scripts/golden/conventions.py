"""What a formula leaves open and implementations settle in several ways: none is wrong, each is declared.

`CONVENTIONS` names each, the value that the cases follow, and the others. A formula takes a convention as the keyword
of its name, and says where it meets one (`meets`): there the case names it and holds the answers of the other values,
for every combination where several meet. A model has no such keywords: its cases name what they meet and hold no other
answers, so that who declares another value is not asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

# name -> its values; the first is the one that the cases follow
CONVENTIONS: dict[str, tuple[str, ...]] = {
    "sinusoidal_layout": ("interleaved", "halves"),
    "causal_alignment": ("bottom-right", "top-left"),
    "empty_row": ("zeros", "nan", "mean", "mean-added"),  # attention without a key
    "empty_softmax": ("zeros", "nan"),  # a row of only -inf
    "empty_mean": ("zero", "nan"),  # of no place, of no token
    "soft_targets": ("any-sum", "sum-to-one", "sum-to-one-in-gradient"),
    "relu_at_zero": ("0", "1", "half"),
    "sgd_velocity": ("of-gradients", "rate-inside", "rate-inside-negative"),
    "sgd_damping": ("none", "one-minus-momentum"),
    "adam_eps": ("outside-root", "inside-root", "before-correction"),
    "decay_order": ("before-step", "after-step"),
    "clip_eps": ("none", "1e-6"),
    "clip_infinite": ("by-formula", "all-nan"),
    "warmup_is_all": ("floor", "peak"),  # the one step that is both the end of the warm-up and of all
    "top_k_ties": ("lower-index", "higher-index", "all"),
    "top_p_ties": ("lower-index", "higher-index"),
}
OF_OPERATION: dict[str, tuple[str, ...]] = {
    "sinusoidal": ("sinusoidal_layout",),
    "attention": ("causal_alignment", "empty_row"),
    "relative_attention": ("causal_alignment", "empty_row"),
    "softmax": ("empty_softmax",),
    "cross_entropy": ("empty_mean",),
    "smoothed_cross_entropy": ("empty_mean",),
    "mean_pool": ("empty_mean",),
    "soft_cross_entropy": ("soft_targets",),
    "relu": ("relu_at_zero",),
    "sgd": ("sgd_velocity", "sgd_damping"),
    "adam": ("adam_eps",),
    "adamw": ("adam_eps", "decay_order"),
    "clip_by_global_norm": ("clip_eps", "clip_infinite"),
    "warmup_cosine": ("warmup_is_all",),
    "sample": ("top_k_ties", "top_p_ties"),
}

_met: ContextVar[set[str]] = ContextVar("_met")


def meets(name: str) -> None:
    """A formula comes to where this convention decides."""
    _met.get(set()).add(name)


@contextmanager
def watched() -> Iterator[set[str]]:
    """In this context the set grows by the conventions that are met."""
    met: set[str] = set()
    token = _met.set(met)
    try:
        yield met
    finally:
        _met.reset(token)


def followed(met: set[str]) -> dict[str, str]:
    """The conventions met and the values that the cases follow, in the order of the table."""
    return {name: values[0] for name, values in CONVENTIONS.items() if name in met}


def others(names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Every other combination of values: "a=b,c=d" -> the keywords under which a formula follows it."""
    found = {}
    for values in itertools.product(*(CONVENTIONS[name] for name in names)):
        changed = {name: value for name, value in zip(names, values, strict=True) if value != CONVENTIONS[name][0]}
        if changed:
            found[",".join(f"{name}={value}" for name, value in changed.items())] = changed
    return found
