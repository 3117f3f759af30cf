"""Laws of attention with a bias by distance. T > 64 and S > 512 make several tiles."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import mpmath
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator

from refllm.spec import attention as text
from spec_tests.rules import STENCIL, STEP
from spec_tests.subject import Implementation, Subject

ONE_TILE, MANY_TILES = (5, 7), (270, 600)


@pytest.fixture(scope="session")
def biased_attention(subject: Subject) -> Implementation:
    return subject.operation("biased_attention")


@pytest.fixture(scope="session")
def attention(subject: Subject) -> Implementation:
    return subject.operation("attention")


@pytest.fixture
def random() -> Generator:
    return numpy.random.default_rng(0)


def _inputs(random: Generator, *lead: int, T: int, S: int, D: int = 3, E: int = 2, dtype: str = "float64") -> Any:
    """q, k, v and r; the last of `lead` counts the heads."""
    shapes = (*lead, T, D), (*lead, S, D), (*lead, S, E), (lead[-1], T + S - 1)
    return tuple(random.normal(size=shape).astype(dtype) for shape in shapes)


def _distance(T: int, S: int) -> Any:
    """From a query's place to a key's: the queries are the last T of S places."""
    return numpy.arange(S) - (numpy.arange(T)[:, None] + S - T)


def _visible(T: int, S: int, causal: bool, attention_mask: Any = None) -> Any:
    visible = numpy.ones((T, S), bool) if attention_mask is None else attention_mask
    return visible & (_distance(T, S) <= 0) if causal else visible


def _text(inputs: tuple[Any, ...], visible: Any) -> Any:
    """That of the plain text, with both masks in one."""
    return text.biased_attention(*inputs, causal=False, attention_mask=visible)[0]


@given(
    T=st.integers(1, 4), S=st.integers(1, 5), seed=st.integers(0, 99), causal=st.booleans(),
    scale=st.sampled_from([1, 30, 1e4]),
)  # fmt: skip
def test_one_head_agrees_with_mpmath(
    biased_attention: Implementation, T: int, S: int, seed: int, causal: bool, scale: float
) -> None:
    q, k, v, r = _inputs(numpy.random.default_rng(seed), 1, T=T, S=S)
    causal = causal and T <= S
    y = biased_attention(q, k, v, r * scale, causal=causal, attention_mask=None)[0][0]
    with mpmath.workdps(40):
        for t in range(T):
            own = t + S - T  # the query's place among the keys
            score = {
                s: mpmath.fdot(map(float, q[0, t]), map(float, k[0, s])) / mpmath.sqrt(3)
                + mpmath.mpf(float((r * scale)[0, s - own + S - 1]))
                for s in range(S)
                if s <= own or not causal
            }
            weight = {s: mpmath.exp(z - max(score.values())) for s, z in score.items()}
            for e in range(2):
                exact = mpmath.fsum(w * float(v[0, s, e]) for s, w in weight.items()) / mpmath.fsum(weight.values())
                assert abs(y[t, e] - float(exact)) <= 1e-14 * (1 + scale)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("offset", [0, 600])
def test_tiles_give_what_the_whole_matrix_gives_and_its_gradient(
    biased_attention: Implementation, random: Generator, causal: bool, masked: bool, offset: float
) -> None:
    """With scores of 600, whose exponentials overflow unless the row's maximum is taken off, too."""
    T, S = MANY_TILES
    q, k, v, r = _inputs(random, 2, T=T, S=S)
    r += offset
    attention_mask = random.random((T, S)) < 0.5 if masked else None
    if attention_mask is not None:
        attention_mask[:, 0] = True
    visible = _visible(T, S, causal, attention_mask)
    y, back = biased_attention(q, k, v, r, causal=causal, attention_mask=attention_mask)
    numpy.testing.assert_allclose(y, _text((q, k, v, r), visible), rtol=0, atol=1e-14 * (1 + offset))

    dy = random.normal(size=y.shape)
    for number, d in enumerate(back(dy)):
        direction, expected = random.normal(size=d.shape), 0.0
        for n, weight in STENCIL.items():
            above, below = [q, k, v, r], [q, k, v, r]
            above[number], below[number] = above[number] + n * STEP * direction, below[number] - n * STEP * direction
            rise = _text((*above,), visible) - _text((*below,), visible)
            expected += weight * (rise * dy).sum() / STEP
        assert abs((d * direction).sum() - expected) <= 1e-7 * abs(d * direction).sum()


@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 9), ONE_TILE, (70, 70), (64, 600), (3, 700), MANY_TILES])
@pytest.mark.parametrize("causal", [True, False])
def test_without_a_bias_and_with_the_same_everywhere_it_is_plain_attention(
    biased_attention: Implementation, attention: Implementation, random: Generator, T: int, S: int, causal: bool
) -> None:
    q, k, v, r = _inputs(random, 3, 2, T=T, S=S)
    dy = random.normal(size=(3, 2, T, 2))
    y, back = attention(q, k, v, causal=causal, attention_mask=None)
    for bias in (0 * r, numpy.full_like(r, 7.5)):
        z, relative_back = biased_attention(q, k, v, bias, causal=causal, attention_mask=None)
        *gradients, dr = relative_back(dy)
        numpy.testing.assert_allclose(z, y, rtol=1e-11, atol=1e-13)
        for a, b in zip(gradients, back(dy), strict=True):
            numpy.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        # a bias that is the same everywhere shifts all scores of a query: the gradient is orthogonal to that
        assert abs(dr.sum()) <= 1e-12 * abs(dr).sum() + 1e-12


@pytest.mark.parametrize(("T", "S"), [ONE_TILE, (70, 70), (64, 600), MANY_TILES])
@pytest.mark.parametrize("scale", [1, 1e4, 1e30])
@pytest.mark.parametrize("bias", [1, 50, 1e4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_future_tokens_do_not_change_the_past(
    biased_attention: Implementation, random: Generator, T: int, S: int, scale: float, bias: float, dtype: str
) -> None:
    """Not in a bit, whatever the new token is, and however large the bias."""
    q, k, v, r = _inputs(random, 2, T=T, S=S, dtype=dtype)
    r *= numpy.asarray(bias, dtype)
    dy = random.normal(size=(2, T, 2)).astype(dtype)
    y, back = biased_attention(q, k, v, r, causal=True, attention_mask=None)
    for t in sorted({1, T // 2, T - 1}):
        s = t + S - T
        new_q, new_k, new_v = q.copy(), k.copy(), v.copy()
        new_q[:, t:] = random.normal(size=new_q[:, t:].shape)
        new_k[:, s:] = random.normal(size=new_k[:, s:].shape) * scale
        new_v[:, s:] = random.normal(size=new_v[:, s:].shape) * scale
        z, new_back = biased_attention(new_q, new_k, new_v, r, causal=True, attention_mask=None)
        assert z[:, :t].tobytes() == y[:, :t].tobytes()
        if scale < 1e30:  # the product of two such numbers, in the gradient, is no float32
            assert new_back(dy)[0][:, :t].tobytes() == back(dy)[0][:, :t].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("low", [-30, -40, -50, -58, -80, -340, -400, -1e4])
def test_a_row_whose_scores_are_all_low_still_has_weights_that_sum_to_one(
    biased_attention: Implementation, dtype: str, low: float
) -> None:
    """Beside a row whose scores are high; only the difference to the row's own largest decides what counts as 0."""
    q, k, v, r = (numpy.zeros(shape, dtype) for shape in ((1, 2, 1), (1, 3, 1), (1, 3, 1), (1, 4)))
    q[0, 1], k[...], v[...] = 1e4, 1, 1
    r[0, 1:] = low  # all that the first query sees
    y, back = biased_attention(q, k, v, r, causal=False, attention_mask=None)
    numpy.testing.assert_allclose(y.ravel(), [1, 1], rtol=1e-6)
    numpy.testing.assert_allclose(back(numpy.array([[[1], [0]]], dtype))[2].ravel(), [1 / 3] * 3, rtol=1e-6)


@given(
    T=st.integers(1, 3), S=st.integers(1, 5), seed=st.integers(0, 99), dtype=st.sampled_from(["float32", "float64"]),
    bias=st.lists(st.sampled_from([0, -10, -45, -80, -87, -95, -360, -700, -720, -1e4, 600]), min_size=7, max_size=7),
)  # fmt: skip
def test_no_bias_leaves_the_tolerance_of_the_golden_files(
    biased_attention: Implementation, T: int, S: int, seed: int, dtype: str, bias: list[float]
) -> None:
    """Not even where only keys far below the largest have a value: y and dv against mpmath, with 8 u times a part of
    the condition that the files would state (golden/README.md), and what the weights that count as 0 may do."""
    random = numpy.random.default_rng(seed)
    q, k, v, _ = _inputs(random, 1, T=T, S=S, dtype=dtype)
    v = (v.clip(-1, 1) / S * (random.random((1, S, 1)) < 0.5)).astype(dtype)
    r, dy = numpy.array([bias[: T + S - 1]], dtype), (random.random((1, T, 2)) / T).astype(dtype)
    y, back = biased_attention(q, k, v, r, causal=False, attention_mask=None)
    dv, limits = back(dy)[2], numpy.finfo(dtype)
    with mpmath.workdps(40):
        P, moves = [], []  # the weights, and for each score what it is with what it is made of: |score| + its condition
        for t in range(T):
            parts = [[mpmath.mpf(float(x)) * float(z) / mpmath.sqrt(3) for x, z in zip(q[0, t], key, strict=True)]
                     for key in k[0]]  # fmt: skip
            offsets = [mpmath.mpf(float(r[0, s - t + T - 1])) for s in range(S)]
            scores = [mpmath.fsum(part) + b for part, b in zip(parts, offsets, strict=True)]
            weights = [mpmath.exp(z - max(scores)) for z in scores]
            P.append([w / mpmath.fsum(weights) for w in weights])
            moves.append([abs(z) + abs(b) + mpmath.fsum(part, absolute=True)
                          for z, b, part in zip(scores, offsets, parts, strict=True)])  # fmt: skip
        for e in range(2):
            for t in range(T):
                terms = [P[t][s] * float(v[0, s, e]) for s in range(S)]
                exact = mpmath.fsum(terms)
                S_y = mpmath.fsum(abs(x - P[t][s] * exact) * moves[t][s] + abs(x) for s, x in enumerate(terms))
                assert abs(y[0, t, e] - exact) <= 4 * limits.eps * (S_y + abs(exact)) + 2 * limits.tiny
            for s in range(S):
                terms = [P[t][s] * float(dy[0, t, e]) for t in range(T)]
                S_dv = mpmath.fsum(
                    x * (1 + mpmath.fsum(abs((s == j) - P[t][j]) * moves[t][j] for j in range(S)))
                    for t, x in enumerate(terms)
                )
                assert abs(dv[0, s, e] - mpmath.fsum(terms)) <= 4 * limits.eps * (2 * S_dv) + 2 * limits.tiny


def test_the_bias_of_a_distance_reaches_exactly_the_pairs_at_that_distance(
    biased_attention: Implementation,
) -> None:
    """A bias of 50 at one distance: where a key stands there, its weight is 1 to the last digits."""
    T, S = 3, 5
    zeros = numpy.zeros((1, T, 2)), numpy.zeros((1, S, 2)), numpy.eye(S)[None]
    for i in range(T + S - 1):
        r = numpy.zeros((1, T + S - 1))
        r[0, i] = 50
        weights = biased_attention(*zeros, r, causal=False, attention_mask=None)[0][0]
        assert numpy.array_equal(weights > 0.9, _distance(T, S) == i - (S - 1))


@pytest.mark.parametrize(("T", "cached"), [(6, 1), (6, 5), (70, 64), (600, 530)])
def test_cached_attention_is_the_end_of_the_full_one(
    biased_attention: Implementation, random: Generator, T: int, cached: int
) -> None:
    """An entry of r stands for the same distance whatever the number of queries."""
    q, k, v, r = _inputs(random, 2, T=T, S=T)
    full = biased_attention(q, k, v, r, causal=True, attention_mask=None)[0]
    rest = biased_attention(q[:, cached:], k, v, r[:, : 2 * T - cached - 1], causal=True, attention_mask=None)[0]
    numpy.testing.assert_allclose(rest, full[:, cached:], rtol=1e-12, atol=1e-13)
    for t in (0, cached, T - 1):
        one = biased_attention(
            q[:, t : t + 1], k[:, : t + 1], v[:, : t + 1], r[:, T - 1 - t : T], causal=True, attention_mask=None
        )[0]
        numpy.testing.assert_allclose(one, full[:, t : t + 1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("T", "S"), [ONE_TILE, MANY_TILES])
def test_minus_infinity_at_a_distance_forbids_it(
    biased_attention: Implementation, attention: Implementation, random: Generator, T: int, S: int
) -> None:
    """A window of the last three keys, as a bias and as a mask."""
    q, k, v, _ = _inputs(random, 2, T=T, S=S)
    dy, distance = random.normal(size=(2, T, 2)), numpy.arange(T + S - 1) - (S - 1)
    window = numpy.where(distance > -3, 0, -math.inf) * numpy.ones((2, 1))
    y, back = biased_attention(q, k, v, window, causal=True, attention_mask=None)
    z, masked_back = attention(q, k, v, causal=True, attention_mask=_distance(T, S) > -3)
    numpy.testing.assert_allclose(y, z, rtol=1e-12, atol=1e-13)
    *gradients, dr = back(dy)
    for a, b in zip(gradients, masked_back(dy), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert not dr[:, distance <= -3].any()
    assert not dr[:, distance > 0].any()
    assert dr[:, (distance > -3) & (distance <= 0)].all()


def test_distances_that_no_query_sees_take_no_gradient_and_change_nothing(
    biased_attention: Implementation, random: Generator
) -> None:
    q, k, v, r = _inputs(random, 2, T=4, S=6)
    y, back = biased_attention(q, k, v, r, causal=True, attention_mask=None)
    other = r.copy()
    other[:, 6:] = random.normal(size=(2, 3))
    numpy.testing.assert_allclose(biased_attention(q, k, v, other, causal=True, attention_mask=None)[0], y, rtol=1e-12)
    assert not back(numpy.ones_like(y))[3][:, 6:].any()


@pytest.mark.parametrize("causal", [True, False])
def test_the_gradient_of_the_bias_sums_over_the_batch_and_the_others_do_not(
    biased_attention: Implementation, random: Generator, causal: bool
) -> None:
    q, k, v, r = _inputs(random, 4, 2, T=5, S=5)
    dy = random.normal(size=(4, 2, 5, 2))
    *whole, dr = biased_attention(q, k, v, r, causal=causal, attention_mask=None)[1](dy)
    halves = [
        biased_attention(q[i], k[i], v[i], r, causal=causal, attention_mask=None)[1](dy[i])
        for i in (slice(0, 1), slice(1, 4))
    ]
    for number, d in enumerate(whole):
        numpy.testing.assert_allclose(numpy.concatenate([h[number] for h in halves]), d, rtol=1e-12, atol=1e-13)
    numpy.testing.assert_allclose(halves[0][3] + halves[1][3], dr, rtol=1e-11, atol=1e-12)


def test_no_query_and_no_key_are_no_error(biased_attention: Implementation) -> None:
    for T, S in ((0, 4), (4, 0), (0, 0)):
        shapes = (2, T, 3), (2, S, 3), (2, S, 5), (2, max(0, T + S - 1))
        y, back = biased_attention(*map(numpy.ones, shapes), causal=False, attention_mask=None)
        assert y.shape == (2, T, 5)
        assert not y.any()
        gradients = back(numpy.ones_like(y))
        assert tuple(d.shape for d in gradients) == shapes
        assert not any(d.any() for d in gradients)


@pytest.mark.parametrize(
    ("r", "says"),
    [
        (numpy.ones((2, 6)), r"must be \(H, T\+S-1\) = \(2, 7\) to match q .* and k .*; got \(2, 6\)"),
        (numpy.ones((1, 7)), r"must be \(H, T\+S-1\) = \(2, 7\) to match q .* and k .*; got \(1, 7\)"),
        (numpy.ones((2, 7), "float32"), "is float32 but q is float64"),
    ],
)
@pytest.mark.own
def test_a_bias_of_another_kind_is_refused(biased_attention: Implementation, r: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"biased_attention: r {says}"):
        biased_attention(
            numpy.ones((2, 3, 1)), numpy.ones((2, 5, 1)), numpy.ones((2, 5, 1)), r, causal=False, attention_mask=None
        )


@pytest.mark.own
def test_errors_name_the_operation(biased_attention: Implementation) -> None:
    x, r = numpy.ones((2, 3, 1)), numpy.ones((2, 5))
    with pytest.raises(ValueError, match="biased_attention: attention_mask must be boolean"):
        biased_attention(x, x, x, r, causal=False, attention_mask=numpy.ones((3, 3)))
    with pytest.raises(ValueError, match="biased_attention: k must be"):
        biased_attention(x, numpy.ones((2, 3, 2)), x, r, causal=False, attention_mask=None)


@pytest.mark.host
def test_memory_grows_linearly_with_the_context(biased_attention: Implementation) -> None:
    """Four times the length takes at most five times the memory, where the square would take sixteen."""

    def peak(T: int) -> int:
        q, k, v = (numpy.random.default_rng(0).standard_normal((1, 1, T, 16), dtype="float32") for _ in range(3))
        r = numpy.zeros((1, 2 * T - 1), "float32")
        tracemalloc.start()
        y, back = biased_attention(q, k, v, r, causal=True, attention_mask=None)
        back(y)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(2048) <= 5 * peak(512)
