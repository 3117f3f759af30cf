"""What the text composes of its operations, blocks, models, training and generation, under the interface of the golden
files: the same names and keywords."""

from __future__ import annotations

import functools
from typing import Any

import numpy
import pytest

from golden import margins
from golden.truth import for_margins
from refllm.numbers import exact
from refllm.numbers.exact import Exact
from refllm.parameters import named_leaves
from refllm.verify import corpus, plain
from refllm.verify.case import Case
from spec_tests.spec import exactly

TEXT = plain.operations()


@functools.cache
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


def cases(*levels: int) -> list[Any]:
    """The cases of these levels as parameters of a test; marked as slow the large ones, but for the least of each
    operation."""
    found = [case for case in golden().cases.values() if case.level in levels and case.operation != "resume"]
    least = {case.operation: case.id for case in sorted(found, key=work, reverse=True)}.values()
    slow = {case.id for case in found if case.level > 2 and work(case) > 3000} - set(least)
    return [pytest.param(case, id=case.id, marks=pytest.mark.slow if case.id in slow else ()) for case in found]


def work(case: Case) -> int:
    """About how many products a case takes."""
    places = sum(x.size for x in case.keywords.values() if isinstance(x, numpy.ndarray) and x.dtype.kind == "i")
    steps: int = case.keywords.get("new_tokens", 1) * case.keywords.get("beams", 1)
    parameters = sum(x.size for name, x in case.inputs.items() if name.partition(".")[0] == case.order[0])
    return parameters * places * steps * (1 + bool(case.gradients))


def require_golden(case: Case) -> None:
    """Outputs, taps and gradients of the hand-written pullback are the very doubles of the golden file, the gradients
    are those of the tape to 300 digits, and the margin of the decisions is in what the text names."""
    with exact.digits(exactly.DIGITS):
        found = exactly.evaluate(case, TEXT[case.operation])
        for name, truth in case.outputs.items():
            numpy.testing.assert_array_equal(as_floats(found.outputs[name]), truth.value, name)
        if case.taps:
            named = {name: x for name, x in found.taps.items() if not for_margins(name)}
            assert list(named) == list(case.taps)
            for name, truth in case.taps.items():
                numpy.testing.assert_array_equal(as_floats(named[name]), truth.value, name)
        if case.margin is not None:
            assert float(margins.margin(case.operation, case.inputs, case.keywords, found, {})) == case.margin
        assert found.by_hand.keys() == (case.gradients.keys() if has_pullback(case) else set())
        for name, gradient in found.by_hand.items():
            assert exactly.furthest(gradient, found.by_tape[name]) < -300, name
            numpy.testing.assert_array_equal(as_floats(gradient), case.gradients[name].value, name)


def has_pullback(case: Case) -> bool:
    return bool(case.gradients)


def as_floats(x: Any) -> Any:
    return exactly.rounded(x) if isinstance(x, Exact) else x


def structure(tree: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all leaves."""
    return sorted((name, leaf.shape) for name, leaf in named_leaves(tree))
