"""What is computed in blocks, or left out because it follows, is what the whole would be, number by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.backend import Array
from refllm.numbers import blockwise, plans, spread_products
from refllm.numbers.planned import Planned
from refllm.numbers.spread import Arithmetic
from refllm.numbers.spread_value import Source, Spread
from refllm.numbers.unrounded import is_nothing, is_power_of_two

HOW = Planned(unit=2.0**-24)
SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)


def covered(shape: tuple[int, ...], indices: Any) -> Array:
    count = numpy.zeros(shape, int)
    for index in indices:
        count[index] += 1
    return count


@given(SHAPES, st.integers(1, 60))
def test_blocks_hold_every_number_once_and_are_no_larger_than_said(shape: tuple[int, ...], most: int) -> None:
    assert (covered(shape, blockwise.blocks(shape, most)) == 1).all()
    sizes = [numpy.empty(shape)[index].size for index in blockwise.blocks(shape, most)]
    assert max(sizes) <= most


@given(SHAPES.filter(lambda shape: len(shape) > 1), st.integers(1, 60), st.integers(1, 3))
def test_blocks_of_rows_are_whole_rows_and_no_block_has_few(shape: tuple[int, ...], most: int, fewest: int) -> None:
    indices = list(blockwise.blocks_of_rows(shape, most, fewest))
    assert (covered(shape, indices) == 1).all()
    assert all(index[-1] == slice(0, shape[-1]) for index in indices)
    rows = shape[-2]
    assert all(index[-2].stop - index[-2].start >= min(fewest, rows) for index in indices)


def drawn(rng: numpy.random.Generator, *shape: int, exact: bool = False) -> Spread:
    """Numbers with errors, among them zeros and powers of two; some without an error, some in common in a row."""
    value = rng.standard_normal(shape)
    value[rng.random(shape) < 0.2] = 0
    value[rng.random(shape) < 0.2] = 0.5
    if exact:
        return Spread(value, 0.0, HOW, kinds=5)
    own = numpy.where(rng.random(shape) < 0.3, 0, 1e-14 * rng.random(shape))
    shared = {SOURCE: 1e-7 * rng.standard_normal(shape), ROWS: 1e-7 * rng.standard_normal((*shape[:-1], 1))}
    return Spread(value, own, HOW, None, shared, 7)


SOURCE, ROWS = Source(), Source(alike=True)


def require_same(one: Spread, other: Spread) -> None:
    assert (one.held, one.kinds, one.shape) == (other.held, other.kinds, other.shape)
    numpy.testing.assert_array_equal(one.value, other.value)
    numpy.testing.assert_array_equal(one.own, other.own)
    own = {source: c for source, c in one.shared.items() if numpy.any(c)}
    assert own.keys() == {source for source, c in other.shared.items() if numpy.any(c)}
    for source, c in own.items():
        numpy.testing.assert_array_equal(
            numpy.broadcast_to(c, one.shape), numpy.broadcast_to(other.shared[source], one.shape)
        )


STEPS: dict[str, Callable[[Spread, Spread], Spread]] = {
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: b - a,
    "product": lambda a, b: a * b,
    "square": lambda a, b: a * a,
    "quotient": lambda a, b: a / b,
    "exponential": lambda a, b: HOW.exp(a),
    "hyperbolic tangent": lambda a, b: HOW.tanh(a),
    "stored": lambda a, b: HOW.stored(a, "bfloat16"),
}


@pytest.mark.parametrize("other", [(6, 10, 12), (10, 12), (6, 1, 12), (10, 1), (1,), ()], ids=str)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_in_blocks_is_the_step(name: str, other: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = numpy.random.default_rng([len(name), *other])
    a, b = drawn(rng, 6, 10, 12), drawn(rng, *(other or (1,)))
    b = b if other else Spread(numpy.array(0.75), 1e-15, HOW)
    b.in_common()  # whose error is the same of every use
    whole = STEPS[name](a, b)
    for most in (1, 7, 50, 400):
        monkeypatch.setattr(blockwise, "BLOCK", most)
        require_same(whole, STEPS[name](a, b))


def plainly(how: Arithmetic, a: Spread, b: Spread) -> Spread:
    """The product by its formula, nothing of it left out."""
    with numpy.errstate(all="ignore"):
        squares = a.value**2 @ b.value**2
        arrived = a.value**2 @ b.variance + a.own @ b.value**2 + spread_products._of_equals(a, b)
    shared = {source: numpy.broadcast_to(c, a.shape) @ b.value for source, c in a.shared.items()}
    count = (~is_nothing(a)).astype(float) @ (~is_nothing(b)).astype(float)
    simple = (~is_power_of_two(a)).astype(float) @ (~is_power_of_two(b)).astype(float) == 0
    products = numpy.where(simple, 0, how.of_rounding(squares) + count * how.underflow**2)
    return how._summed(a.value @ b.value, arrived + products, squares, count, a.kinds * b.kinds, shared)


def require_near(one: Spread, other: Spread) -> None:
    """As near as the order in which a library adds takes them; 0 is 0."""
    for x, y in [
        (one.value, other.value),
        (one.own, other.own),
        *((one.shared[s], other.shared[s]) for s in one.shared),
    ]:
        assert ((x == 0) == (y == 0)).all()
        numpy.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-13 * float(abs(y).max(initial=0)))


SHAPES_OF_FACTORS = [
    ((9, 5), (5, 8)), ((3, 9, 5), (3, 5, 8)), ((4, 1, 9, 5), (3, 5, 8)), ((9, 5), (2, 5, 3)), ((3, 9, 1), (1, 8)),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["drawn", "powers of two", "zeros", "halves of a row", "no zeros"])
@pytest.mark.parametrize("exact", [(False, False), (True, False), (False, True), (True, True)], ids=str)
@pytest.mark.parametrize("shapes", SHAPES_OF_FACTORS, ids=str)
def test_a_product_in_blocks_and_without_what_follows_is_the_product(
    shapes: Any, exact: tuple[bool, bool], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = numpy.random.default_rng([len(kind), *exact, *shapes[0], *shapes[1]])
    a, b = (drawn(rng, *shape, exact=each) for shape, each in zip(shapes, exact, strict=True))
    a.value[...], b.value[...] = (of_kind(kind, x) for x in (a.value, b.value))
    plain = plainly(HOW, a, b)
    require_near(plain, HOW.matmul(a, b))
    for most, fewest in ((1, 1), (20, 2), (60, 4)):
        monkeypatch.setattr(spread_products, "MOST", most)
        monkeypatch.setattr(spread_products, "FEWEST", fewest)
        require_near(plain, HOW.matmul(a, b))


def of_kind(kind: str, x: Array) -> Array:
    if kind == "powers of two":
        return numpy.exp2(numpy.round(x))
    if kind == "zeros":
        return numpy.zeros(x.shape)
    if kind == "halves of a row":
        return numpy.where(numpy.arange(x.shape[-1]) % 2 == 0, 0.5, x + 3)
    return numpy.where(x == 0, 0.3, x) if kind == "no zeros" else x


def test_where_squares_overflow_nothing_is_known_of_the_error() -> None:
    a, b = Spread(numpy.array([[1e200, 1.0]]), 0.0, HOW), Spread(numpy.array([[0.0], [1.0]]), 0.0, HOW)
    y = HOW.matmul(a, b)
    assert y.value == 1
    assert not numpy.isfinite(y.own)


def test_a_plan_says_the_same_of_attention_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = numpy.random.default_rng(3)
    q, k, v, dy = (numpy.round(rng.standard_normal((2, 33, 8)) * 32) / 32 for _ in range(4))
    how = ({"q": q, "k": k, "v": v}, {"causal": True, "attention_mask": None}, {"y": dy})

    def found() -> list[tuple[Array, Array]]:
        plan = plans.plan("eager", "bfloat16")
        values, gradients = plan.evaluate("attention", *how)
        return [(x.value, plan.deviation(x)) for x in (*values.values(), *gradients.values())]

    whole = found()
    monkeypatch.setattr(blockwise, "BLOCK", 100)
    monkeypatch.setattr(spread_products, "MOST", 200)
    monkeypatch.setattr(spread_products, "FEWEST", 4)
    for one, other in zip(whole, found(), strict=True):
        for x, y in zip(one, other, strict=True):
            numpy.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-14)
