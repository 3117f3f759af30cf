"""Masks in bits that are read with another stride than they were written with, or of another row, are named so."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.kernels.packed_masks import masks
from spec_tests.verify.kernels.noted import Noted

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


def packed(mask: Array, written: int, read: int) -> Array:
    """The bits of a mask as they are read, the rows as far apart as is said."""
    rows = mask.reshape(-1, mask.shape[-1])
    memory = numpy.zeros(len(rows) * max(written, read) + rows.shape[1], bool)
    for r, row in enumerate(rows):
        memory[r * written : r * written + len(row)] = row
    found = [memory[r * read : r * read + rows.shape[1]] for r in range(len(rows))]
    return numpy.array(found).reshape(mask.shape)


def words(n: int, unit: int) -> int:
    return -(-n // unit) * unit


@wrong("relu", "whose gradient keeps x > 0 of relu as a mask that has rows that are rounded up to whole words of 32 "
       "bits, and is read as if they were rounded down")  # fmt: skip
def signs_in_words(x: Array) -> Any:
    y, right = TEXT["relu"](x)
    n = x.shape[-1] if x.ndim else 1
    if x.ndim < 2 or not x.size:
        return y, right
    kept = packed(x > 0, words(n, 32), max(n // 32, 1) * 32)
    return y, lambda dy: numpy.where(kept, dy, 0)


@wrong("dropout", "whose mask has rows of whole bytes, and is read as if they were of whole words of 64 bits")
def bytes_for_words(x: Array, *, keep: Array, rate: float) -> Any:
    n = x.shape[-1]
    mask = packed(keep, words(n, 8), words(n, 64)) if x.ndim > 1 and x.size else keep
    return TEXT["dropout"](x, dropout_mask=mask, rate=rate)


@wrong("dropout", "whose mask is read of the row after, in the gradient alone")
def offset_of_another_row(x: Array, *, keep: Array, rate: float) -> Any:
    y, _ = TEXT["dropout"](x, dropout_mask=keep, rate=rate)
    rows = keep.reshape(-1, keep.shape[-1]) if keep.size else keep
    other = numpy.roll(rows, -1, axis=0).reshape(keep.shape) if keep.ndim > 1 else keep
    return y, lambda dy: TEXT["dropout"](dy, dropout_mask=other, rate=rate)[0]


@wrong("dropout", "whose mask has rows that are cut to whole words of 16 bits, and is false behind them")
def cut_to_words(x: Array, *, keep: Array, rate: float) -> Any:
    return TEXT["dropout"](x, dropout_mask=keep & (numpy.arange(x.shape[-1]) < x.shape[-1] // 16 * 16), rate=rate)


@pytest.mark.parametrize("name", KERNELS)
def test_mask_of_another_stride_is_named(name: str) -> None:
    KERNELS.is_named(name)


def test_each_reads_other_bits_of_a_mask_of_several_rows() -> None:
    """Of a mask that repeats nothing, in rows of a length that no unit divides."""
    mask = numpy.random.default_rng(7).random((5, 2, 203)) < 0.6
    for _, about, change in masks():
        made = change(mask)
        assert made.shape == mask.shape, about
        assert (made != mask).any() or "as if they were of" in about, about  # of which two may round 203 alike
        assert numpy.array_equal(change(mask[0, 0]), mask[0, 0]) or "cut" in about, about  # a row by itself is right
