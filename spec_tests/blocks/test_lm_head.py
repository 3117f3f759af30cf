"""The loss without the whole of the logits is the loss with them. (LMHEAD, NLL)"""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.blocks import lm_head
from refllm.blocks.lm_head import lm_loss, smoothed_lm_loss
from refllm.ops.cross_entropy import cross_entropy
from refllm.ops.linear import matmul

B, T, C, V = 2, 5, 3, 7


def example(seed: int) -> tuple[Any, Any, Any]:
    random = numpy.random.default_rng(seed)
    return random.standard_normal((B, T, C)), random.standard_normal((C, V)), random.integers(0, V, (B, T))


@given(block=st.integers(1, B * T * V + V), ignore=st.none() | st.integers(0, V - 1), seed=st.integers(0, 99))
def test_the_loss_does_not_depend_on_the_size_of_a_block_of_logits(block: int, ignore: int | None, seed: int) -> None:
    h, W, targets = example(seed)
    logits, back_logits = matmul(h, W)
    loss, back_loss = cross_entropy(logits, targets=targets, ignore=ignore, reduction="sum")
    dh, dW = back_logits(back_loss(numpy.array(0.7)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm_head, "LOGITS", block)
        blockwise, back = lm_loss(h, W, targets=targets, ignore=ignore, cap=None)
        blockwise_dh, blockwise_dW = back(numpy.array(0.7))
    numpy.testing.assert_allclose(blockwise, loss, rtol=1e-13)
    numpy.testing.assert_allclose(blockwise_dh, dh, rtol=1e-12, atol=1e-14)
    numpy.testing.assert_allclose(blockwise_dW, dW, rtol=1e-12, atol=1e-14)


def test_there_are_never_more_logits_at_once_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(x: Any, W: Any) -> Any:
        y, back = matmul(x, W)
        made.append(y.size)
        return y, back

    monkeypatch.setattr(lm_head, "matmul", counted)
    monkeypatch.setattr(lm_head, "LOGITS", 3 * V + 1)
    h, W, targets = example(0)
    lm_loss(h, W, targets=targets, ignore=None, cap=None)
    assert made == [3 * V, 3 * V, 3 * V, V]


def test_a_text_without_tokens_costs_nothing() -> None:
    h, W, targets = example(0)
    loss, back = lm_loss(h[:0], W, targets=targets[:0], ignore=None, cap=None)
    dh, dW = back(numpy.ones(()))
    assert loss == 0
    assert dh.shape == (0, T, C)
    assert not dW.any()


@pytest.mark.parametrize("nothing", [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_row_that_is_ignored_contributes_exactly_nothing(nothing: float, smoothing: float) -> None:
    """Whatever stands there, forward and back: 0 times it is not always 0."""
    random = numpy.random.default_rng(0)
    h, W, dy = random.standard_normal((5, 3)), random.standard_normal((3, 4)), random.standard_normal(())
    targets = numpy.array([1, -1, 3, -1, 0])
    results = []
    for what in (0, nothing):
        rows = numpy.where((targets != -1)[:, None], h, what)
        y, back = smoothed_lm_loss(rows, W, targets=targets, ignore=-1, smoothing=smoothing, cap=None)
        results.append([y, *back(numpy.asarray(dy))])
    for a, b in zip(*results, strict=True):
        assert numpy.array_equal(a, b)
    assert not results[1][1][targets == -1].any()
