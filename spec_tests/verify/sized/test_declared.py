"""A convention that is declared keeps only those sized cases away that meet it."""

from __future__ import annotations

from dataclasses import replace

import numpy

from refllm.verify import corpus
from refllm.verify.sized.judge import _met


def test_a_softmax_of_numbers_meets_no_empty_row(golden: corpus.Corpus) -> None:
    case = next(c for c in golden.cases.values() if "empty_softmax" in c.conventions)
    rows = numpy.array([[1.0, 2.0], [-numpy.inf, 0.0]])
    declared = {"empty_softmax": "nan", "causal_alignment": "top-left"}
    assert _met(replace(case, inputs={"x": rows}), declared) == []
    empty = numpy.array([[1.0, 2.0], [-numpy.inf, -numpy.inf]])
    assert _met(replace(case, inputs={"x": empty}), declared) == ["empty_softmax=nan"]
    assert _met(replace(case, inputs={"x": empty}), {"empty_softmax": "zeros"}) == []
