"""What the first value that differs has to do with the right one, where it is plain: a multiple of it, the same entries
in another order, the same but for one vector at every place, or what another value should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy

from refllm.backend import Array
from refllm.verify.ports.fitted import factor
from refllm.verify.ports.judged import Compared, Judged
from refllm.verify.ports.trials import MARGIN

FEWEST = 3  # places of which one says that the same vector is added to each
SHOWN = 6  # entries whose order is listed


def relation(answers: Sequence[Judged], name: str) -> str:
    """In words; "" where it is nothing plain."""
    wrong = [answer for answer in answers if name in answer.wrong and name not in answer.unfit]
    if not wrong:
        return ""
    times = factor(wrong, name)
    if times is not None:
        number = f"{times:.6g}"
        return "what is right with the other sign" if number == "-1" else f"{number} times what is right"
    return next((said for find in (_other_value, _order, _shift) for said in find(wrong, name)), "")


def _each(answers: Sequence[Judged], name: str) -> list[tuple[Compared, Array]]:
    both = [(answer.compared[name], answer.compared[name].given) for answer in answers]
    return [(one, x) for one, x in both if x is not None]


def _is(one: Compared, value: Array) -> bool:
    """Whether the port gave this value."""
    assert one.given is not None
    return replace(one.expected, value=value).far(one.given) <= MARGIN


def _other_value(answers: Sequence[Judged], name: str) -> Iterator[str]:
    """What another value should be, on every input."""
    for other, expected in answers[-1].truth.values.items():
        if other == name or expected.value.shape != answers[-1].compared[name].expected.value.shape:
            continue
        both = [(answer.compared[name], answer.truth.values.get(other)) for answer in answers]
        if all(value is not None and value.value.shape == one.expected.value.shape for one, value in both) and all(
            value is not None and _is(one, value.value) for one, value in both
        ):
            yield f"what {other} should be"


def _order(answers: Sequence[Judged], name: str) -> Iterator[str]:
    """The same entries in another order of the last axis."""
    direction = numpy.random.default_rng(0)
    given = right = numpy.zeros(answers[0].compared[name].expected.value.shape[-1])
    for one, x in _each(answers, name):
        weights = direction.normal(size=(*x.shape[:-1], 1))
        weights = weights if one.expected.counts is None else weights * one.expected.counts
        axes = tuple(range(x.ndim - 1))
        given, right = given + (weights * x).sum(axes), right + (weights * one.expected.value).sum(axes)
    order = numpy.arange(len(right))
    order[numpy.argsort(given, kind="stable")] = numpy.argsort(right, kind="stable")
    if (order == numpy.arange(len(order))).all():
        return
    if all(_is(one, one.expected.value[..., order]) for one, _ in _each(answers, name)):
        listed = ", ".join(map(str, order[:SHOWN])) + (" ..." if len(order) > SHOWN else "")
        yield f"what is right, its entries in another order: {listed}"


def _shift(answers: Sequence[Judged], name: str) -> Iterator[str]:
    """The right value and one vector more, the same at every place of every input."""
    off = [(x - one.expected.value).reshape(-1, x.shape[-1]) if x.ndim < 4 else
           (x - one.expected.value).swapaxes(1, 2).reshape(-1, x.shape[1] * x.shape[-1])
           for one, x in _each(answers, name)]  # fmt: skip
    rows = numpy.concatenate(off)
    if len(rows) < FEWEST:
        return
    vector = numpy.median(rows, axis=0)
    for (one, x), _ in zip(_each(answers, name), off, strict=True):
        added = vector if x.ndim < 4 else vector.reshape(x.shape[1], 1, x.shape[-1])
        if not _is(one, one.expected.value + added):
            return
    yield "what is right and the same vector more at every place, as of a bias that is left out or added"
