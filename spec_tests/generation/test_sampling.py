"""Laws of the choice of a token. (GEN)"""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.generation.sampling import check_sampling, choose

ALMOST_ONE = math.nextafter(1, 0)
rows = st.lists(st.floats(-20, 20), min_size=1, max_size=8)
few = st.lists(st.sampled_from([0.0, 1.0, 2.0, 1.5]), min_size=1, max_size=8)  # with ties
uniforms = st.floats(0, ALMOST_ONE)
temperatures = st.floats(0.1, 5)


def drawn(
    row: list[float], u: Any, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Any:
    u = numpy.atleast_1d(u)
    logits = numpy.tile(numpy.array(row), (len(u), 1))
    return choose(logits, temperature=temperature, top_k=top_k, top_p=top_p, uniforms=u)


def greedy(row: list[float]) -> int:
    logits = numpy.array([row])
    return int(choose(logits, temperature=1.0, top_k=None, top_p=None, uniforms=None)[0])


def distribution(row: list[float], temperature: float, top_k: int | None, top_p: float | None) -> list[float]:
    """Of the docstring, with lists: the candidates in order, the best `top_k`, the shortest list that reaches top_p."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:top_k]
    weights = {i: math.exp((row[i] - max(row)) / temperature) for i in order}
    share = {i: weights[i] / math.fsum(weights.values()) for i in order}
    kept: list[int] = []
    for i in order:
        if top_p is not None and math.fsum(share[j] for j in kept) >= top_p:
            break
        kept.append(i)
    total = math.fsum(share[i] for i in kept)
    return [share[i] / total if i in kept else 0.0 for i in range(len(row))]


@given(
    row=few | rows,
    temperature=temperatures,
    top_k=st.none() | st.integers(1, 9),
    top_p=st.none() | st.floats(0.01, 1).filter(lambda p: abs(p * 100 - round(p * 100)) > 1e-6),
)
def test_evenly_spread_uniforms_hit_each_token_as_often_as_it_is_probable(
    row: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    n = 2000
    grid = (numpy.arange(n) + 0.5) / n
    ids = drawn(row, grid, temperature=temperature, top_k=top_k, top_p=top_p)
    frequency = numpy.bincount(ids, minlength=len(row)) / n
    expected = distribution(row, temperature, top_k, top_p)
    numpy.testing.assert_allclose(frequency, expected, atol=2 / n)
    assert ids.tolist() == sorted(ids)  # the inverse of the cumulative distribution


@given(row=few | rows)
def test_greedy_takes_the_largest_and_of_equals_the_first(row: list[float]) -> None:
    assert greedy(row) == row.index(max(row))


@given(row=few | rows, u=uniforms, temperature=temperatures)
def test_the_best_one_alone_is_greedy(row: list[float], u: float, temperature: float) -> None:
    assert drawn(row, u, temperature=temperature, top_k=1)[0] == greedy(row)


@given(row=few | rows, u=uniforms, temperature=temperatures)
@example(row=[0.0, 1e-20], u=0.5, temperature=1.0)  # equally probable after rounding, and yet the second is larger
def test_a_tiny_top_p_is_greedy(row: list[float], u: float, temperature: float) -> None:
    assert drawn(row, u, temperature=temperature, top_p=1e-12)[0] == greedy(row)


def test_a_list_that_reaches_top_p_exactly_is_long_enough() -> None:
    assert drawn([0.0, 0.0], ALMOST_ONE, top_p=0.5)[0] == 0
    assert drawn([0.0, 0.0], ALMOST_ONE, top_p=math.nextafter(0.5, 1))[0] == 1


@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 5e-324])
@given(row=st.lists(st.integers(-50, 50), min_size=1, max_size=8, unique=True), u=uniforms)
def test_towards_temperature_zero_sampling_becomes_greedy(temperature: float, row: list[int], u: float) -> None:
    values = [float(z) for z in row]
    assert drawn(values, u, temperature=temperature)[0] == greedy(values)


@given(row=rows, u=uniforms)
def test_towards_infinite_temperature_every_token_is_as_probable(row: list[float], u: float) -> None:
    grid = (numpy.arange(100 * len(row)) + 0.5) / (100 * len(row))
    assert numpy.bincount(drawn(row, grid, temperature=1e9)).tolist() == [100] * len(row)


@given(row=rows, top_k=st.none() | st.integers(1, 8), top_p=st.none() | st.floats(0.01, 1))
def test_the_smallest_and_the_largest_uniform_hit_the_first_and_the_last_candidate(
    row: list[float], top_k: int | None, top_p: float | None
) -> None:
    ids = drawn(row, [0.0, ALMOST_ONE], top_k=top_k, top_p=top_p)
    candidates = [i for i, p in enumerate(distribution(row, 1.0, top_k, top_p)) if p > 1e-15]
    assert ids[0] == candidates[0]
    assert ids[1] >= candidates[-1]
    assert distribution(row, 1.0, top_k, top_p)[ids[1]] > 0


def test_an_impossible_token_is_never_drawn() -> None:
    row = [-math.inf, 0.0, -math.inf, 0.0, -math.inf]
    assert drawn(row, [0.0, 0.49, 0.51, ALMOST_ONE]).tolist() == [1, 1, 3, 3]


def test_rows_are_drawn_each_by_its_own_uniform() -> None:
    logits = numpy.log(numpy.array([[0.5, 0.5], [0.1, 0.9], [0.9, 0.1]]))
    u = numpy.array([0.6, 0.05, 0.5])
    assert choose(logits, temperature=1.0, top_k=None, top_p=None, uniforms=u).tolist() == [1, 0, 0]


@given(row=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=8), u=uniforms)
def test_a_draw_does_not_depend_on_the_dtype_of_the_logits(row: list[float], u: float) -> None:
    single, double = (numpy.array([row], dtype) for dtype in ("float32", "float64"))
    settings: dict[str, Any] = {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "uniforms": numpy.array([u])}
    assert choose(single, **settings) == choose(double, **settings)


def test_logits_are_only_read() -> None:
    logits = numpy.array([[1.0, 2.0, 3.0]])
    logits.setflags(write=False)
    choose(logits, temperature=0.5, top_k=2, top_p=0.5, uniforms=numpy.array([0.5]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0; for the most probable token use --greedy"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"temperature": math.nan}, "temperature must be above 0"),
        ({"top_k": 0}, "top-k must be at least 1"),
        ({"top_p": 0.0}, "top-p must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top-p must be"),
        ({"top_p": math.nan}, "top-p must be"),
    ],
)
def test_what_cannot_be_sampled_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_sampling(**{"temperature": 1.0, "top_k": None, "top_p": None, **change})
    for uniforms in (None, numpy.array([0.5])):
        with pytest.raises(UserError, match=says):
            choose(
                numpy.eye(1, 3),
                **{"temperature": 1.0, "top_k": None, "top_p": None, "uniforms": uniforms, **change},
            )
