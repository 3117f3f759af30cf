"""Lost digits are recognised by the form that loses them, and a right implementation is never taken for one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refllm.verify import corpus, diagnosis, noise, reference, runner, search
from refllm.verify.adapter import Functions
from refllm.verify.explanation import Explanation

Array = Any
f32 = np.float32


@functools.cache
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


def results(operation: str, f: Callable[..., Any], dtype: str = "float32") -> list[runner.Result]:
    cases = [case for case in golden().cases.values() if case.operation == operation]
    return list(runner.run(Functions("a stranger", {operation: f}, {}), cases, dtype, golden().C))


def variance_by_moments(x: Array, g: Array, b: Array, *, eps: float) -> Array:
    m = x.mean(-1, keepdims=True)
    v = (x * x).mean(-1, keepdims=True) - m * m
    return (g * (x - m) / np.sqrt(v + f32(eps)) + b).astype(f32)


def logarithm_of_a_softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    with np.errstate(divide="ignore"):
        return np.log(e / e.sum(-1, keepdims=True))


def half_precision_accumulator(x: Array, W: Array) -> Array:
    y = np.zeros((*x.shape[:-1], W.shape[1]), f32)
    for i in range(len(W)):
        y = (y + x[..., i : i + 1] * W[i]).astype(np.float16).astype(f32)
    return y


def scores_in_half_precision(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Array:
    s = (q @ np.swapaxes(k, -1, -2) / f32(math.sqrt(q.shape[-1]))).astype(np.float16).astype(f32)
    if causal:
        T, S = s.shape[-2:]
        s = np.where(np.tri(T, S, S - T, dtype=bool), s, -np.inf)
    s = s if allowed is None else np.where(allowed, s, -np.inf)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(np.isinf(top), 0, top))
    Z = e.sum(-1, keepdims=True)
    return (e / np.where(Z == 0, 1, Z) @ v).astype(f32)


LOST = [
    ("layer_norm", variance_by_moments, "E[x²] - E[x]²"),
    ("log_softmax", logarithm_of_a_softmax, "logarithm of a softmax"),
    ("matmul", half_precision_accumulator, "float16"),
    ("attention", scores_in_half_precision, "float16"),
]


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("operation", "f", "words"), LOST, ids=[f.__name__ for _, f, _ in LOST])
def test_lost_digits_are_named_by_what_loses_them(operation: str, f: Callable[..., Any], words: str) -> None:
    held = results(operation, f)
    found = noise.recognised(held, "float32", golden().C)
    assert words in found[operation].form.about
    explained = search.explained(held, "float32", seconds=1)
    told = list(diagnosis.diagnosed(held, "float32", found=explained, lost=found))
    first = next(r.diagnosis[0] for r in told if r.wrong and r.case.id in found[operation].explained)
    assert isinstance(first, Explanation), first


@pytest.mark.parametrize("operation", ["layer_norm", "log_softmax", "matmul", "attention", "softmax"])
def test_right_answers_lose_no_digits(operation: str) -> None:
    assert noise.recognised(results(operation, reference.functions()[operation]), "float32", golden().C) == {}


def test_another_formula_is_not_taken_for_lost_digits() -> None:
    half = lambda x, W: (x @ W / 2).astype(f32)
    assert noise.recognised(results("matmul", half), "float32", golden().C) == {}
