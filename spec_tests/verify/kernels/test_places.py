"""Wrong elements that lie where a mask is false, or in one head of a parameter, are said to."""

from __future__ import annotations

from typing import Any

import numpy
from hypothesis import given
from hypothesis import strategies as st

from refllm.verify.case import Case
from refllm.verify.kernels.places import places


def case(**keywords: Any) -> Case:
    return Case("X/x", "X", "", "x", 1, "", (), {}, keywords)


@given(st.integers(2, 5), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_places_that_a_mask_leaves_out_are_said(B: int, T: int, seed: int) -> None:
    valid = numpy.random.default_rng(seed).random((B, T)) < 0.5
    wrong = numpy.repeat(~valid[..., None], 3, axis=2)
    if valid.all() or not valid.any():
        assert places(case(valid=valid), "outputs.y", wrong) == []
        return
    assert places(case(valid=valid), "outputs.y", wrong) == ["at all places where valid is false, and at no others"]
    assert places(case(valid=valid), "outputs.y", ~wrong) == []
    assert places(case(valid=valid), "outputs.y", numpy.ones_like(wrong)) == []


def test_targets_that_do_not_count_are_places() -> None:
    targets = numpy.array([3, -1, 2, -1])
    wrong = numpy.repeat((targets == -1)[:, None], 5, axis=1)
    [said] = places(case(targets=targets, ignore=-1), "gradients.logits", wrong)
    assert said == "at all places whose target does not count, and at no others"
    assert places(case(targets=targets, ignore=None), "gradients.logits", wrong) == []


def test_one_head_of_several_is_said_by_its_place() -> None:
    how = case(heads=6, kv_heads=3)
    wrong = numpy.zeros((7, 24), bool)
    wrong[:, 20:] = True
    assert places(how, "gradients.p.Wq", wrong) == ["in the last of 6 heads alone"]
    assert places(how, "gradients.p.Wk", wrong) == ["in the last of 3 heads of keys alone"]
    wrong[:, :4] = True
    assert places(how, "gradients.p.Wq", wrong) == []
    assert places(how, "gradients.p.Wo", wrong[:, ::-1].T[:, :] & False) == []
