"""Contributions to one index that meet, counts and addresses of few bits, products that stop, what another operation
gives, tables with rows of another width and walks by one query of a tile are named, and what gives one answer alone
with where it does.

The kernels here were written for these tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import addresses, plain
from refllm.verify.adapter import Functions
from refllm.verify.kernels import addressed, partial_products
from refllm.verify.kernels.in_text import InText
from spec_tests.verify.kernels.noted import Noted
from spec_tests.verify.kernels.test_diagnosis import told

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


@wrong("embedding", "scatter_add(ids, dy, len(E)) of 8 places at once, in which the last alone counts of one index")
def eight_tokens_at_once(E: Array, *, ids: Array) -> Any:
    def back(dy: Array) -> Array:
        dE, index, given = numpy.zeros_like(E), ids.reshape(-1), dy.reshape(-1, E.shape[1])
        for first in range(0, len(index), 8):
            dE[index[first : first + 8]] += given[first : first + 8]
        return dE

    return E[ids], back


@wrong("add_positions", "len(P)) of 2 rows of places at once, in which the last alone counts of one index")
def two_texts_at_once(x: Array, P: Array, *, positions: Array) -> Any:
    y, back = TEXT["add_positions"](x, P, positions=positions)

    def back_of_pairs(dy: Array) -> Any:
        dP, index = numpy.zeros_like(P), numpy.broadcast_to(positions, dy.shape[:-1])
        for text in range(0, len(dy), 2):
            dP[index[text : text + 2]] += dy[text : text + 2]
        return back(dy)[0], dP

    return y, back_of_pairs


@wrong("cross_entropy", "has counted.sum() as an unsigned 8-bit number, which begins again below")
def targets_counted_in_eight_bits(logits: Array, *, targets: Array, ignore: int | None, reduction: str) -> Any:
    y, back = TEXT["cross_entropy"](logits, targets=targets, ignore=ignore, reduction=reduction)
    count = targets.size if ignore is None else int((targets != ignore).sum())
    times = max(1, count) / max(1, count % 256) if reduction == "mean" else 1
    return (y * times).astype(logits.dtype), lambda dy: (back(dy) * times).astype(logits.dtype)


@wrong(
    "gru_reset_after", "terms after whole parts of 8, where there is such a part (2 and 4 and 16 and 32 fit as well)"
)
def units_in_whole_vectors(x: Array, h: Array, Wx: Array, Wh: Array, bx: Array, bh: Array, **how: Any) -> Any:
    N = len(Wh)
    cut = Wh.copy()
    if N >= 16:
        cut[N // 16 * 16 :] = 0
    return TEXT["gru_reset_after"](x, h, Wx, cut, bx, bh, **how)[0]


@wrong("linear", "whose gradient takes dy @ W.T without the terms after whole parts of 4, where")
def columns_in_whole_vectors(x: Array, W: Array, b: Array) -> Any:
    y, back = TEXT["linear"](x, W, b)
    whole = W.shape[1] // 4 * 4
    return y, lambda dy: (dy[..., :whole] @ W[:, :whole].T, *back(dy)[1:])


@wrong("silu", "silu with what gelu_tanh gives in its value alone (silu/as-gelu-tanh-in-value)")
def another_activation_in_the_tail(x: Array) -> Any:
    y, back = TEXT["silu"](x)
    flat, left = y.reshape(-1).copy(), x.size // 16 * 16
    flat[left:] = TEXT["gelu_tanh"](x.reshape(-1)[left:])[0]
    return flat.reshape(x.shape), back


@wrong("partial_rotary", "with rows of positions for the part that is turned, at the distance of those for the whole")
def rows_at_the_distance_of_a_head(x: Array, *, positions: Array, base: float, turned: int, layout: str) -> Any:
    D, half = x.shape[-1], turned // 2
    angles = numpy.arange(int(positions.max(initial=0)) + 1)[:, None] * base ** (-numpy.arange(half) / half)
    place = positions[..., None] * (D // 2) + numpy.arange(half)
    there = place < angles.size
    angle = angles.reshape(-1)[numpy.where(there, place, 0)]
    cos, sin = (numpy.where(there, f(angle), 0) for f in (numpy.cos, numpy.sin))
    one, other = (slice(0, half), slice(half, turned)) if layout == "halves" else (slice(0, turned, 2),
                                                                                  slice(1, turned, 2))  # fmt: skip

    def turn(z: Array, sign: int) -> Array:
        y = z.copy()
        y[..., one] = z[..., one] * cos - sign * z[..., other] * sin
        y[..., other] = z[..., other] * cos + sign * z[..., one] * sin
        return y

    return turn(x, 1), lambda dy: turn(dy, -1)


@wrong("packed_attention", "a walk over keys that ends with the last key that the mask allows to the first query")
def walks_as_far_as_the_first_query(
    q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool
) -> Any:
    T, S = q.shape[-2], k.shape[-2]
    seen = numpy.zeros((T, S), bool)
    for (a, b), (c, d) in zip(itertools.pairwise(borders), itertools.pairwise(key_borders), strict=True):
        past = numpy.tri(b - a, d - c, (d - c) - (b - a), dtype=bool)
        seen[a:b, c:d] = past if causal else True
    for first in range(0, T, 32):
        keys = numpy.flatnonzero(seen[first])
        if len(keys):
            seen[first : first + 32, -(-(int(keys[-1]) + 1) // 32) * 32 :] = False
    return TEXT["attention"](q, k, v, causal=False, allowed=seen)[0]


@wrong(
    "capped_attention",
    "makes NaN of a tile without a key, with tiles of 16 to 512 (all of these fit) (attention/nothing-minus-nothing)",
)
def nothing_minus_nothing(q: Array, k: Array, v: Array, *, cap: float, causal: bool, allowed: Any) -> Any:
    y = TEXT["capped_attention"](q, k, v, cap=cap, causal=causal, allowed=allowed)[0]
    T, S = q.shape[-2], k.shape[-2]
    seen = numpy.ones((*q.shape[:-1], S), bool) if allowed is None else allowed
    seen = numpy.broadcast_to(seen, (*q.shape[:-1], S)) & (numpy.tri(T, S, S - T, dtype=bool) if causal else True)
    none = numpy.zeros(seen.shape[:-1], bool)
    for rows in range(0, T, 16):
        last = min(rows + 16, T) - 1 + S - T if causal else S
        if last >= 0:
            none[..., rows : rows + 16] |= ~seen[..., rows : rows + 16, :16].any(axis=-1)
    y[none] = numpy.nan
    return y


@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", list(KERNELS))
def test_a_kind_of_mistake_is_named_first(name: str) -> None:
    KERNELS.is_named_first(name)


OF_TEXT: dict[str, Callable[[str], Any]] = {
    "scatters": addressed.scatters,
    "narrow": addressed.narrow,
    "tails of products": partial_products.tails_of_products,
    "parts of products": partial_products.parts_of_products,
}


@pytest.mark.parametrize("kind", OF_TEXT)
@pytest.mark.parametrize("operation", ["embedding", "lstm", "load_balance", "smoothed_cross_entropy", "linear"])
def test_every_edit_is_python_and_has_words_of_its_own(operation: str, kind: str) -> None:
    found: list[InText] = list(OF_TEXT[kind](operation))
    assert all(cause.edit.function() is not None for cause in found), operation
    assert len({cause.about for cause in found}) == len(found)
    assert all(cause.about.startswith(f"{operation} ") for cause in found)


def test_each_kind_has_edits_of_an_operation_that_has_such_lines() -> None:
    assert list(addressed.scatters("embedding"))
    assert any("count-overflow" in cause.id for cause in addressed.narrow("load_balance"))
    assert any("address-overflow" in cause.id for cause in addressed.narrow("cross_entropy"))
    words = " ".join(cause.about for cause in partial_products.tails_of_products("lstm"))
    assert all(f"takes {product} without" in words for product in ("x[:, t] @ Wx", "states[t] @ Wh"))


def test_indices_that_do_not_meet_lose_nothing() -> None:
    generator = numpy.random.default_rng(3)
    index, x = numpy.array([[0, 1, 2, 3], [1, 2, 3, 0]]), generator.normal(size=(2, 4, 3))
    right = numpy.zeros((4, 3))
    numpy.add.at(right, index, x)
    for n, by in ((4, "places"), (1, "rows"), (1, "columns")):
        assert numpy.allclose(addresses.scatter_in_chunks(index, x, 4, n, by), right)
    assert numpy.allclose(addresses.scatter_in_chunks(index, x, 4, 2, "rows"), x[1][[3, 0, 1, 2]])


def test_numbers_that_fit_are_as_they_were() -> None:
    generator = numpy.random.default_rng(4)
    x, index = generator.normal(size=(5, 7)), generator.integers(0, 7, 5)
    assert (addresses.pick_in_bits(x, index, "int16") == x[numpy.arange(5), index]).all()
    assert (addresses.rows_in_bits(x, index % 5, "uint16") == x[index % 5]).all()
    assert (addresses.one_hot_in_bits(index, 7, "uint16") == (index[:, None] == numpy.arange(7))).all()
    assert addresses.in_bits(130, "int8") == -126
    assert addresses.at_most(130, 127) == 127
    made = addresses.scatter_in_bits(index, x, 7, "uint16")
    right = numpy.zeros((7, 7))
    numpy.add.at(right, index, x)
    assert numpy.allclose(made, right)


@pytest.mark.every
def test_what_gives_the_only_wrong_answer_is_named_with_where_it_does() -> None:
    """A maximum that begins with 0, in rows that are no whole vectors alone: one case has such rows far below 0."""

    def softmax(x: Array) -> Any:
        if x.shape[-1] % 32 == 0 or x.shape[-1] > 1000:
            return TEXT["softmax"](x)
        top = numpy.maximum(x.max(axis=-1, keepdims=True, initial=0), 0)
        e = numpy.exp(x - top)
        Z = e.sum(axis=-1, keepdims=True)
        p = e / numpy.where(Z == 0, 1, Z)
        return p, lambda dp: p * (dp - (p * dp).sum(axis=-1, keepdims=True))

    found = told(Functions("vectors", {"softmax": softmax}, {}, ("float64", "float32")), "softmax", "float32")
    assert len(found) == 1
    assert "(softmax/maximum-from-zero), in the one case that is wrong" in found[0].diagnosis[0]
    assert "is not)" in found[0].diagnosis[0]
