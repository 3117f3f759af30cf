"""The words for parts of a batch that edited text uses."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.numbers.traced import differentiated
from refllm.spec.cross_entropy import cross_entropy
from refllm.verify import parts

IGNORED = -1


def test_a_mean_by_text_is_the_mean_of_the_texts_means() -> None:
    draw = numpy.random.default_rng(0)
    logits, dy = draw.normal(size=(3, 4, 5)), numpy.array(2.0)
    targets = draw.integers(0, 5, size=(3, 4))
    targets[0, 1:], targets[2] = IGNORED, IGNORED
    how: dict[str, Any] = {"targets": targets, "ignore": IGNORED, "reduction": "mean"}
    each = [cross_entropy(logits[b], **{**how, "targets": targets[b]}) for b in range(3)]
    for word, share in ((parts.by_text, 1 / 3), (parts.by_text_with_any, 1 / 2)):
        y, back = word(cross_entropy)(logits, **how)
        assert numpy.allclose(y, share * sum(value for value, _ in each))
        assert numpy.allclose(back(dy), differentiated(word(cross_entropy))(logits, **how)[1](dy))
        assert not numpy.allclose(y, cross_entropy(logits, **how)[0])


@pytest.mark.parametrize("axis", [-1, -2, -3])
def test_a_mask_in_one_slice_is_true_in_the_others(axis: int) -> None:
    x, mask = numpy.zeros((2, 2, 2)), numpy.zeros((1, 2), bool)
    held = numpy.broadcast_to(parts.in_slice(mask, x, axis, 1), x.shape)
    assert not numpy.take(held, 1, axis).any()
    assert numpy.take(held, 0, axis).all()


def test_many_slices_are_not_written_apart() -> None:
    with pytest.raises(ValueError, match="slices apart"):
        parts.in_slice(numpy.ones(9, bool), numpy.zeros(9), -1, 0)
