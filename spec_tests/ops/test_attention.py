"""Laws of attention. T > 64 and S > 512 make several tiles."""

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

ONE_TILE, MANY_TILES = (5, 7), (130, 1100)


@pytest.fixture(scope="session")
def attention(subject: Subject) -> Implementation:
    return subject.operation("attention")


@pytest.fixture(scope="session")
def heads(subject: Subject) -> Implementation:
    return subject.operation("heads")


@pytest.fixture
def random() -> Generator:
    return numpy.random.default_rng(0)


def _inputs(random: Generator, *lead: int, T: int, S: int, D: int = 3, E: int = 2, dtype: str = "float64") -> Any:
    shapes = (*lead, T, D), (*lead, S, D), (*lead, S, E)
    return tuple(random.normal(size=shape).astype(dtype) for shape in shapes)


def _visible(T: int, S: int, causal: bool, attention_mask: Any) -> Any:
    visible = numpy.ones((T, S), bool) if attention_mask is None else attention_mask
    return visible & (numpy.arange(S) <= numpy.arange(T)[:, None] + S - T) if causal else visible


def _by_mpmath(q: Any, k: Any, v: Any, visible: Any) -> Any:
    with mpmath.workdps(40):
        out = []
        for t, query in enumerate(q):
            seen = [s for s in range(len(k)) if visible[t, s]]
            score = {s: mpmath.fdot(map(float, query), map(float, k[s])) / mpmath.sqrt(len(query)) for s in seen}
            weight = {s: mpmath.exp(score[s] - max(score.values())) for s in seen}
            total = mpmath.fsum(weight.values())
            sums = [mpmath.fsum(weight[s] * float(v[s, e]) for s in seen) for e in range(v.shape[1])]
            out.append([float(z / (total or 1)) for z in sums])
        return out


def _text(inputs: tuple[Any, ...], visible: Any) -> Any:
    """That of the plain text, with both masks in one."""
    return text.attention(*inputs, causal=False, attention_mask=visible)[0]


@given(
    T=st.integers(1, 4), S=st.integers(1, 5), D=st.integers(1, 3), seed=st.integers(0, 99), causal=st.booleans(),
    masked=st.booleans(), scale=st.sampled_from([1, 30, 1e4]),
)  # fmt: skip
def test_attention_agrees_with_mpmath(
    attention: Implementation, T: int, S: int, D: int, seed: int, causal: bool, masked: bool, scale: float
) -> None:
    random = numpy.random.default_rng(seed)
    q, k, v = _inputs(random, T=T, S=S, D=D)
    attention_mask = random.random((T, S)) < 0.6 if masked else None
    causal = causal and T <= S
    y = attention(q * scale, k, v, causal=causal, attention_mask=attention_mask)[0]
    expected = _by_mpmath(q * scale, k, v, _visible(T, S, causal, attention_mask))
    numpy.testing.assert_allclose(y, expected, rtol=0, atol=1e-14 * (1 + scale))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scale", [1, 300])
def test_tiles_give_what_the_whole_matrix_gives_and_its_gradient(
    attention: Implementation, random: Generator, causal: bool, masked: bool, scale: float
) -> None:
    T, S = MANY_TILES
    q, k, v = _inputs(random, 2, T=T, S=S)
    q *= scale
    attention_mask = random.random((T, S)) < 0.5 if masked else None
    if attention_mask is not None:
        attention_mask[:, 0] = True
    visible = _visible(T, S, causal, attention_mask)
    y, back = attention(q, k, v, causal=causal, attention_mask=attention_mask)
    numpy.testing.assert_allclose(y, _text((q, k, v), visible), rtol=0, atol=1e-14 * (1 + scale))

    dy, step = random.normal(size=y.shape), STEP / scale
    for number, d in enumerate(back(dy)):
        direction, expected = random.normal(size=d.shape), 0.0
        for n, weight in STENCIL.items():
            above, below = [q, k, v], [q, k, v]
            above[number], below[number] = above[number] + n * step * direction, below[number] - n * step * direction
            rise = _text((*above,), visible) - _text((*below,), visible)
            expected += weight * (rise * dy).sum() / step
        assert abs((d * direction).sum() - expected) <= 1e-7 * abs(d * direction).sum()


@pytest.mark.parametrize(("T", "S"), [ONE_TILE, (70, 70), (64, 600), MANY_TILES])
@pytest.mark.parametrize("scale", [1, 1e4, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_future_tokens_do_not_change_the_past(
    attention: Implementation, random: Generator, T: int, S: int, scale: float, dtype: str
) -> None:
    """Not in a bit, whatever the new token is: neither the outputs before it nor the gradients of their queries."""
    q, k, v = _inputs(random, T=T, S=S, dtype=dtype)
    dy = random.normal(size=(T, 2)).astype(dtype)
    y, back = attention(q, k, v, causal=True, attention_mask=None)
    for t in sorted({1, T // 2, T - 1}):
        s = t + S - T
        new_q, new_k, new_v = q.copy(), k.copy(), v.copy()
        new_q[t:] = random.normal(size=new_q[t:].shape)
        new_k[s:] = random.normal(size=new_k[s:].shape) * scale
        new_v[s:] = random.normal(size=new_v[s:].shape) * scale
        z, new_back = attention(new_q, new_k, new_v, causal=True, attention_mask=None)
        assert z[:t].tobytes() == y[:t].tobytes()
        if scale < 1e30:  # the product of two such numbers, in the gradient, is no float32
            assert new_back(dy)[0][:t].tobytes() == back(dy)[0][:t].tobytes()


def test_a_causal_query_sees_the_keys_up_to_its_own_counted_from_the_end(attention: Implementation) -> None:
    v = numpy.array([[1.0], [10], [100], [1000]])
    y = attention(numpy.zeros((2, 3)), numpy.zeros((4, 3)), v, causal=True, attention_mask=None)[0]
    assert y.ravel() == pytest.approx([111 / 3, 1111 / 4], rel=1e-15)


@pytest.mark.parametrize(("T", "cached"), [(6, 1), (6, 5), (70, 64), (600, 530)])
def test_cached_attention_is_the_end_of_the_full_one(
    attention: Implementation, random: Generator, T: int, cached: int
) -> None:
    q, k, v = _inputs(random, 2, T=T, S=T)
    full = attention(q, k, v, causal=True, attention_mask=None)[0]
    rest = attention(q[:, cached:], k, v, causal=True, attention_mask=None)[0]
    numpy.testing.assert_allclose(rest, full[:, cached:], rtol=1e-12, atol=1e-13)
    for t in (0, cached, T - 1):
        step = attention(q[:, t : t + 1], k[:, : t + 1], v[:, : t + 1], causal=True, attention_mask=None)[0]
        numpy.testing.assert_allclose(step, full[:, t : t + 1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("causal", [True, False])
def test_a_sequence_alone_gives_what_it_gives_in_a_batch(
    attention: Implementation, random: Generator, causal: bool
) -> None:
    """Beside a sequence whose scores are large, too."""
    q, k, v = _inputs(random, 3, T=5, S=7)
    q[1] *= 1e6
    batch = attention(q, k, v, causal=causal, attention_mask=None)[0]
    alone = numpy.stack([attention(*xs, causal=causal, attention_mask=None)[0] for xs in zip(q, k, v, strict=True)])
    numpy.testing.assert_allclose(batch, alone, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("T", "S"), [ONE_TILE, MANY_TILES])
@pytest.mark.parametrize("content", [0, 1, 1e6])
def test_keys_that_are_not_allowed_do_not_matter(
    attention: Implementation, random: Generator, T: int, S: int, content: float
) -> None:
    """Padding: neither their number nor their content changes a value, and they get no gradient."""
    q, k, v = _inputs(random, 2, T=T, S=S)
    dy, pad = random.normal(size=(2, T, 2)), 9
    y, back = attention(q, k, v, causal=False, attention_mask=None)
    padded_k, padded_v = (
        numpy.concatenate([x, content * random.normal(size=(2, pad, x.shape[-1]))], axis=-2) for x in (k, v)
    )
    attention_mask = numpy.arange(S + pad) < S
    z, padded_back = attention(q, padded_k, padded_v, causal=False, attention_mask=attention_mask)
    numpy.testing.assert_allclose(z, y, rtol=1e-12, atol=1e-13)
    (dq, dk, dv), (padded_dq, padded_dk, padded_dv) = back(dy), padded_back(dy)
    for a, b in ((padded_dq, dq), (padded_dk[:, :S], dk), (padded_dv[:, :S], dv)):
        numpy.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
    assert not padded_dk[:, S:].any()
    assert not padded_dv[:, S:].any()


def test_without_positions_attention_permutes_with_its_tokens(attention: Implementation, random: Generator) -> None:
    q, k, v = _inputs(random, 2, T=6, S=6)
    order, dy = random.permutation(6), random.normal(size=(2, 6, 2))
    y, back = attention(q, k, v, causal=False, attention_mask=None)
    z, permuted_back = attention(q[:, order], k[:, order], v[:, order], causal=False, attention_mask=None)
    numpy.testing.assert_allclose(z, y[:, order], rtol=1e-13, atol=1e-13)
    for a, b in zip(permuted_back(dy[:, order]), back(dy), strict=True):
        numpy.testing.assert_allclose(a, b[:, order], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [1, 100])
def test_weights_are_positive_and_sum_to_one(
    attention: Implementation, random: Generator, causal: bool, scale: float
) -> None:
    """With the unit vectors for values, the output is the weights."""
    q, k, _ = _inputs(random, T=5, S=7)
    weights = attention(q * scale, k, numpy.eye(7), causal=causal, attention_mask=None)[0]
    assert (weights >= 0).all()
    numpy.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-14)


@pytest.mark.parametrize("causal", [True, False])
def test_the_bias_of_the_keys_changes_nothing_and_has_no_gradient(
    attention: Implementation, heads: Implementation, random: Generator, causal: bool
) -> None:
    x, W, b = random.normal(size=(2, 5, 6)), random.normal(size=(6, 18)), random.normal(size=18)
    qkv, back_heads = heads(x, W, b, heads=2, parts=3)
    y, back = attention(*qkv, causal=causal, attention_mask=None)
    db = back_heads(*back(random.normal(size=y.shape)))[2]
    assert abs(db[6:12]).max() <= 1e-13 * abs(db).max()
    assert abs(db[:6]).min() > 1e-6
    b[6:12] += 3
    shifted = attention(*heads(x, W, b, heads=2, parts=3)[0], causal=causal, attention_mask=None)[0]
    numpy.testing.assert_allclose(shifted, y, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("T", "S"), [ONE_TILE, MANY_TILES])
@pytest.mark.parametrize("scale", [1, 1e6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_query_that_may_attend_nothing_gives_zeros_and_no_gradient(
    attention: Implementation, random: Generator, T: int, S: int, scale: float, dtype: str
) -> None:
    q, k, v = _inputs(random, 2, T=T, S=S, dtype=dtype)
    q *= numpy.asarray(scale, dtype)
    attention_mask = numpy.ones((T, S), bool)
    attention_mask[3] = False
    y, back = attention(q, k, v, causal=False, attention_mask=attention_mask)
    assert not y[:, 3].any()
    dq, dk, dv = back(numpy.ones_like(y))
    assert not dq[:, 3].any()
    only = numpy.zeros_like(y)
    only[:, 3] = 1
    assert not any(d.any() for d in back(only))
    assert all(numpy.isfinite(d).all() for d in (y, dq, dk, dv))


@pytest.mark.parametrize("S", [4, 600])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_score_far_above_the_others_selects_its_value(
    attention: Implementation, random: Generator, S: int, dtype: str
) -> None:
    q, k = numpy.full((2, 1), 1e30, dtype), numpy.linspace(-1, 1, S, dtype=dtype)[:, None]
    v = random.normal(size=(S, 2)).astype(dtype)
    y, back = attention(q, k, v, causal=False, attention_mask=None)
    assert (y == v[-1]).all()
    dq, _, dv = back(numpy.ones((2, 2), dtype))
    assert not dq.any()
    assert (dv.sum(axis=1) == numpy.where(numpy.arange(S) == S - 1, 4, 0)).all()


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-8, 1e8, 1e15, 1e30])
@pytest.mark.parametrize("score", [-50.0, -30.0, 30.0, 50.0])
def test_values_keep_their_digits_however_small_or_large(attention: Implementation, score: float, size: float) -> None:
    """All scores of a row may be far from 0: e^score times a value leaves the range of float32, P does not."""
    q, k = numpy.full((8, 4), 1, numpy.float32), numpy.full((3, 4), score / 2, numpy.float32)
    v = numpy.full((3, 2), size, numpy.float32)
    y, back = attention(q, k, v, causal=False, attention_mask=None)
    numpy.testing.assert_allclose(y, numpy.full((8, 2), size), rtol=1e-6)
    dq, _, dv = back(numpy.ones((8, 2), numpy.float32))
    numpy.testing.assert_allclose(dv, numpy.full((3, 2), 8 / 3), rtol=1e-6)
    assert abs(dq).max() <= 1e-5 * size * abs(score)


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_of_micro_batches_are_those_of_the_batch(
    attention: Implementation, random: Generator, causal: bool
) -> None:
    q, k, v = _inputs(random, 4, T=5, S=5)
    dy = random.normal(size=(4, 5, 2))
    whole = attention(q, k, v, causal=causal, attention_mask=None)[1](dy)
    halves = [
        attention(q[i], k[i], v[i], causal=causal, attention_mask=None)[1](dy[i]) for i in (slice(0, 1), slice(1, 4))
    ]
    for d, parts in zip(whole, zip(*halves, strict=True), strict=True):
        numpy.testing.assert_allclose(numpy.concatenate(parts), d, rtol=1e-12, atol=1e-13)


def test_no_query_and_no_key_are_no_error(attention: Implementation) -> None:
    y, back = attention(
        numpy.ones((2, 0, 3)), numpy.ones((2, 4, 3)), numpy.ones((2, 4, 5)), causal=False, attention_mask=None
    )
    assert y.shape == (2, 0, 5)
    assert not any(d.any() for d in back(y))
    y, back = attention(
        numpy.ones((2, 4, 3)), numpy.ones((2, 0, 3)), numpy.ones((2, 0, 5)), causal=False, attention_mask=None
    )
    assert y.shape == (2, 4, 5)
    assert not y.any()
    assert not back(numpy.ones_like(y))[0].any()


def test_e1_read_as_one_query_and_one_key_the_output_is_the_value(attention: Implementation) -> None:
    q, k, v = (numpy.array([row]) for row in ([1.0, 2, 3], [4.0, 5, 6], [7.0, 8, 9]))
    assert attention(q, k, v, causal=False, attention_mask=None)[0][0] == pytest.approx([7, 8, 9], rel=1e-15)


def test_e1_read_as_three_tokens_of_width_one(attention: Implementation) -> None:
    q, k, v = (numpy.array(row)[:, None] for row in ([1.0, 2, 3], [4.0, 5, 6], [7.0, 8, 9]))
    weights = attention(q, k, numpy.eye(3), causal=False, attention_mask=None)[0][0]
    assert weights == pytest.approx([0.0900305731703805, 0.2447284710547977, 0.6652409557748219], rel=1e-14)
    assert attention(q, k, v, causal=False, attention_mask=None)[0][0, 0] == pytest.approx(8.575210382604441, rel=1e-15)


def test_e1_the_score_is_32_over_the_root_of_3(attention: Implementation) -> None:
    """18.475208614068026, not 18.26: seen in the weight against a key whose score is zero."""
    q, k = numpy.array([[1.0, 2, 3]]), numpy.array([[4.0, 5, 6], [0, 0, 0]])
    weights = attention(q, k, numpy.eye(2), causal=False, attention_mask=None)[0][0]
    assert math.log(weights[0] / weights[1]) == pytest.approx(18.475208614068026, rel=1e-14)


def test_e3_the_scale_is_the_width_of_one_head(attention: Implementation, heads: Implementation) -> None:
    """Two heads of width 2 in a model of width 4: scores are divided by √2, not by √4."""
    x, W = numpy.array([[1.0, 0, 0, 0], [0, 0, 0, 0]]), numpy.tile(numpy.eye(4), 3)
    (q, k, _), _ = heads(x, W, numpy.zeros(12), heads=2, parts=3)
    weights = attention(q, k, numpy.broadcast_to(numpy.eye(2), (2, 2, 2)), causal=False, attention_mask=None)[0]
    assert math.log(weights[0, 0, 0] / weights[0, 0, 1]) == pytest.approx(1 / math.sqrt(2), rel=1e-14)


def test_with_fewer_keys_than_queries_the_first_queries_see_none(attention: Implementation) -> None:
    T, S = 70, 3
    rng = numpy.random.default_rng(0)
    q, k, v = (rng.standard_normal((n, 4)) for n in (T, S, S))
    y, back = attention(q, k, v, causal=True, attention_mask=None)
    last, back_last = attention(q[-S:], k, v, causal=True, attention_mask=None)
    assert not y[:-S].any()
    numpy.testing.assert_allclose(y[-S:], last, rtol=1e-12, atol=1e-15)
    dy = rng.standard_normal(y.shape)
    dq, dk, dv = back(dy)
    assert not dq[:-S].any()
    for ours, theirs in zip((dq[-S:], dk, dv), back_last(dy[-S:]), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("attention_mask", "message"),
    [
        (numpy.ones((3, 2)), "attention: attention_mask must be boolean, got float64; convert it with .astype"),
        (numpy.ones((2, 3), bool), r"attention: attention_mask must broadcast to \(..., T, S\) = \(3, 2\)"),
        (numpy.ones((4, 3, 2), bool), r"attention: attention_mask must broadcast to .*; got \(4, 3, 2\)"),
    ],
)
@pytest.mark.own
def test_a_mask_of_another_kind_is_refused(attention: Implementation, attention_mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(
            numpy.ones((3, 1)), numpy.ones((2, 1)), numpy.ones((2, 1)), causal=False, attention_mask=attention_mask
        )


@pytest.mark.own
def test_keys_of_another_width_are_refused(attention: Implementation) -> None:
    with pytest.raises(
        ValueError, match=r"attention: k must be \(..., S, D\) = .* to match q .* \(4, 3\); got \(2, 1\)"
    ):
        attention(numpy.ones((4, 3)), numpy.ones((2, 1)), numpy.ones((2, 1)), causal=False, attention_mask=None)


@pytest.mark.host
def test_memory_grows_linearly_with_the_context(attention: Implementation) -> None:
    """Four times the length takes at most five times the memory, where the square would take sixteen."""

    def peak(T: int) -> int:
        q, k, v = (numpy.random.default_rng(0).standard_normal((1, 1, T, 16), dtype="float32") for _ in range(3))
        tracemalloc.start()
        y, back = attention(q, k, v, causal=True, attention_mask=None)
        back(y)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(8192) <= 5 * peak(2048)
