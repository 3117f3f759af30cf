"""Right answers that are distorted at random, as no formula distorts them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from refllm.verify import corpus, plain, runner
from refllm.verify.case import Case, Response

Draw = np.random.Generator
Distortion = Callable[[Any, Draw], Any]


def noisy(x: Any, draw: Draw) -> Any:
    return x * (1 + 1e-3 * draw.normal(size=x.shape)) if x.dtype.kind == "f" else x


def with_one_element_wrong(x: Any, draw: Draw) -> Any:
    y = x.copy().reshape(-1)
    place = draw.integers(y.size)
    y[place] = y[place] + (draw.uniform(0.5, 1) if y.dtype.kind == "f" else 1)
    return y.reshape(x.shape)


def with_one_sign_wrong(x: Any, draw: Draw) -> Any:
    y = x.copy().reshape(-1)
    place = draw.choice(np.flatnonzero(y)) if y.any() else 0
    y[place] = -y[place]
    return y.reshape(x.shape)


DISTORTIONS: dict[str, Distortion] = {
    "noise of 1e-3": noisy,
    "one element wrong": with_one_element_wrong,
    "one sign wrong": with_one_sign_wrong,
}


def results(golden: corpus.Corpus, operation: str, how: str, seed: int = 0) -> list[runner.Result]:
    """What is judged of right answers to an operation of which each tensor, or each answer, is distorted."""
    cases = [case for case in golden.cases.values() if case.operation == operation and case.level > 0]
    return [runner.judged(case, distorted(case, how, seed), "float64", golden.C) for case in cases]


def distorted(case: Case, how: str, seed: int) -> Response:
    truth = plain.answer(case, "float64", {}, traced=False)
    assert truth is not None
    draw = np.random.default_rng(zlib.crc32(f"{case.id} {seed}".encode()))
    if how == "a factor of each case":
        factor = draw.uniform(1.1, 3)
        change: Callable[[Any], Any] = lambda x: x * factor if x.dtype.kind == "f" else x
    else:
        change = lambda x: DISTORTIONS[how](x, draw) if x.size else x
    outputs = {name: change(np.asarray(x)) for name, x in truth.outputs.items()}
    gradients = truth.gradients
    if gradients:
        only = sorted(gradients)[draw.integers(len(gradients))]
        gradients = {name: change(np.asarray(x)) if name == only else x for name, x in gradients.items()}
    return replace(truth, outputs=outputs, gradients=gradients)
