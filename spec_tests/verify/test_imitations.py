"""Answers are compared tensor by tensor, or all tensors in one go: the differences are the same."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.verify import corpus, imitations
from refllm.verify.case import Answers, Case, Response

GOLDEN = corpus.load(corpus.folder(None))
SEVERAL = [case for case in GOLDEN.cases.values() if len(case.outputs) >= imitations.MANY or len(case.gradients) > 7]


def noisy(case: Case, draw: numpy.random.Generator) -> Response:
    """The truth with noise in some tensors, and now and then a number that is not finite."""
    truth = Answers(case.outputs, case.gradients).response()

    def of(tensors: dict[str, Any] | None) -> dict[str, Any]:
        found = {}
        for name, x in (tensors or {}).items():
            if not isinstance(x, numpy.ndarray) or x.dtype.kind != "f":
                found[name] = x
                continue
            y = x + draw.choice([0, 1e-16, 1e-9, 1.0]) * draw.normal(size=x.shape)
            if y.size and draw.random() < 0.05:
                y.reshape(-1)[0] = draw.choice([numpy.nan, numpy.inf])
            found[name] = y
        return found

    return Response(of(truth.outputs), of(truth.gradients))


@pytest.mark.parametrize("seed", range(3))
def test_tensors_compared_in_one_go_are_as_far_apart_as_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, cases = numpy.random.default_rng(seed), SEVERAL[seed::9]
    assert cases
    for case in cases:
        got, other = noisy(case, draw), noisy(case, draw)
        together = list(imitations._tensors(case, got, other, "float64"))
        with monkeypatch.context() as alone:
            alone.setattr(imitations, "MANY", 10**9)
            one_by_one = list(imitations._tensors(case, got, other, "float64"))
        assert numpy.array_equal(numpy.array(together, float), numpy.array(one_by_one, float), equal_nan=True)


def test_an_answer_in_one_piece_is_that_of_this_answer() -> None:
    """Two answers in turn, with other numbers."""
    draw, case = numpy.random.default_rng(0), SEVERAL[0]
    for _ in range(5):
        got = noisy(case, draw)
        assert all(
            error == 0 or not numpy.isfinite(error) for error, *_ in imitations._tensors(case, got, got, "float64")
        )
