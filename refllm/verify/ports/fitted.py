"""What only the answers of a port say: by which number it multiplies, and whether its output layer has other weights
than the files. Nothing is guessed: the number, or the weights, are those that fit the answers best, and must fit all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from types import FunctionType

import numpy

from refllm.backend import Array
from refllm.parameters import Tree
from refllm.verify.ports.candidates import Candidate, acting_through
from refllm.verify.ports.evaluation import NOTHING
from refllm.verify.ports.judged import Judged
from refllm.verify.ports.mistakes.habit import edited
from refllm.verify.ports.mistakes.scales import EMBEDDING
from refllm.verify.ports.program import Program, Step
from refllm.verify.ports.published import bert
from refllm.verify.ports.trials import MARGIN

COST = 0.8
MORE = 8  # places beyond the width of the states, without which any numbers would fit
SCALED = "the embedding is multiplied by {:.6g}, where {:.6g} is right"
OTHER_HEAD = "the logits are a linear map of the right last hidden states, with other weights than those of {}"


def numbers(program: Program, answers: Sequence[Judged]) -> Iterator[Candidate]:
    """Another number by which the embedding is multiplied, where a port gives its embedding."""
    if not program.config.get("scaled_embedding"):
        return
    right = math.sqrt(program.config["width"])
    for step in program.steps:
        times = factor([a for a in answers if a.compared], step.place) if step.kind.endswith("embedding") else None
        if times is not None and isinstance(step.text, FunctionType):
            value = float(f"{times * right:.7g}")
            said = SCALED.format(value, right)
            edit = edited(step.text, EMBEDDING, f"x * {value!r}", said)
            yield Candidate(said, COST, NOTHING, acting_through(step.text), [], edit)


def factor(answers: Sequence[Judged], name: str) -> float | None:
    """The number that a value is multiplied by, on all inputs on which it is wrong; None if it is no such number."""
    wrong = [one.compared[name] for one in answers if name in one.wrong and name not in one.unfit]
    if not wrong:
        return None
    sums = numpy.zeros(2)
    for one in wrong:
        assert one.given is not None
        counted = one.expected.value if one.expected.counts is None else one.expected.value * one.expected.counts
        sums += (counted * one.given).sum(), (counted * counted).sum()
    if not sums[1] or not numpy.isfinite(sums).all() or not sums[0]:
        return None
    times = float(sums[0] / sums[1])
    for one in wrong:
        assert one.given is not None
        scaled = replace(one.expected, value=times * one.expected.value, error=abs(times) * one.expected.error)
        if scaled.far(one.given) > MARGIN:
            return None
    return times


def other_head(program: Program, p: Tree, answers: Sequence[Judged]) -> Candidate | None:
    """Whether what is wrong is in the weights of the output layer alone; None if not, or if the states are too wide for
    the places that there are."""
    step = next(step for step in program.steps if step.place == program.answer)
    name = _weights(program, step)
    found = [_equations(program, step, answer) for answer in answers]
    if not name or not found or any(one is None for one in found) or any(a.right for a in answers):
        return None
    A, Y = (numpy.concatenate(parts) for parts in zip(*(one for one in found if one is not None), strict=True))
    if len(A) < A.shape[1] + MORE:
        return None
    weights = numpy.linalg.lstsq(A, Y, rcond=None)[0]
    if not all(_fits(program, step, answer, weights) for answer in answers):
        return None
    lines = [("parameters", [f"- {name}", "+ other weights"])]
    return Candidate(OTHER_HEAD.format(name), COST, NOTHING, partial(_is, step), lines)


def _is(step: Step, other: Step) -> bool:
    return step.place == other.place


def _weights(program: Program, step: Step) -> str:
    """The parameter that the last map has; "" where there is no such map of every place."""
    if step.kind != "output" or step.text is bert.class_logits:
        return ""
    if step.text is bert.span_logits:
        return "span.W"
    return "token" if step.text is bert.masked_logits or program.config["tied"] else "head"


def _inputs(program: Program, step: Step, answer: Judged) -> Array:
    """What the last map is of, with a 1 beside it where the map has a bias."""
    before = program.steps[: program.index(step.place)]
    last = "transform" if step.text is bert.masked_logits else next(s for s in reversed(before) if s.gives == "x").place
    x = answer.truth.values[last].value
    has_bias = step.text in (bert.masked_logits, bert.span_logits)
    return numpy.concatenate([x, numpy.ones((*x.shape[:-1], 1))], axis=-1) if has_bias else x


def _equations(program: Program, step: Step, answer: Judged) -> tuple[Array, Array] | None:
    """Inputs and logits of every place that counts; None where the logits cannot be taken back through their cap."""
    one = answer.compared.get(step.place)
    if one is None or one.given is None:
        return None
    y, x = one.given.astype("float64"), _inputs(program, step, answer)
    cap = program.config.get("logit_cap")
    if cap:
        if not (numpy.abs(y) < cap).all():
            return None
        y = cap * numpy.arctanh(y / cap)
    if not numpy.isfinite(y).all():
        return None
    rows = numpy.ones(y.shape[:-1], bool) if one.expected.counts is None else one.expected.counts[..., 0]
    return x[rows], y[rows]


def _fits(program: Program, step: Step, answer: Judged, weights: Array) -> bool:
    """Whether an output layer with these weights gives the logits of the port."""
    one = answer.compared[step.place]
    assert one.given is not None
    y = _inputs(program, step, answer) @ weights
    cap = program.config.get("logit_cap")
    if cap:
        y = cap * numpy.tanh(y / cap)
    return replace(one.expected, value=y).far(one.given) <= MARGIN
