"""In bfloat16 and float16 a tiny case allows the least of its condition and of the widest plan: a right answer passes,
and one that is off by more than its roundings fails."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import check, runner
from refllm.verify.by_plan import narrowed
from refllm.verify.case import Case, Response
from refllm.verify.corpus import Corpus
from refllm.verify.kernels.machine import narrow
from refllm.verify.tolerance import tolerance


def some(golden: Corpus) -> list[Case]:
    return [each for each in golden.cases.values() if each.level == 1][::9]


def rounded(x: Array, dtype: str) -> Array:
    carried = "float32" if dtype == "bfloat16" else dtype
    return numpy.asarray(narrow(x, dtype), carried) if x.dtype.kind == "f" else x


@pytest.mark.every
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_less_is_allowed_than_by_the_condition_and_an_answer_that_is_rounded_once_passes(
    golden: Corpus, dtype: str
) -> None:
    less = 0
    for each in some(golden):
        if runner.unfit_for(each, dtype, golden.C):
            continue
        near = narrowed(each, dtype)
        for group in ("outputs", "gradients"):
            for name, truth in getattr(near, group).items():
                allowed, flat = (tolerance(t, dtype, golden.C) for t in (truth, getattr(each, group)[name]))
                assert (allowed <= flat).all()
                less += bool((allowed < flat).any())
        given = ({n: rounded(t.value, dtype) for n, t in g.items()} for g in (each.outputs, each.gradients))
        outputs, gradients = given
        response = Response(outputs, gradients or None)
        wrong = [v.message for v in runner.judge(near, response, dtype, golden.C) if v.wrong not in ("", "dtype")]
        assert wrong == [], each.id
    assert less > 30


def test_other_dtypes_and_levels_are_as_they_were(golden: Corpus) -> None:
    one = next(each for each in golden.cases.values() if each.level == 1)
    assert narrowed(one, "float32") is one
    last = next(each for each in golden.cases.values() if each.level == 5)
    assert narrowed(last, "bfloat16") is last


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_what_is_not_rounded_must_be_met(dtype: str, bits: int) -> None:
    """A number that is passed on is a number of the dtype. Two units were allowed, or eight; this is one."""

    def relu(x: Any) -> Any:
        return (numpy.maximum(x, 0) * (1 + 2.0 ** (1 - bits))).astype(x.dtype)

    found = check(relu, "relu", dtype=dtype, values=True, search=0)
    assert found.failures
    assert not check(lambda x: numpy.maximum(x, 0), "relu", dtype=dtype, values=True, search=0).failures
