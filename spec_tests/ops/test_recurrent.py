"""Laws of one recurrent layer: RNN and LSTM against their formulas, time, and places without a token."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spec_tests.subject import Subject

CELLS = ("rnn", "lstm")
every_cell = pytest.mark.parametrize("cell", CELLS)


def arguments(cell: str, B: int, T: int, I: int, N: int, *, seed: int = 0) -> list[Any]:
    """x, the first states, Wx, Wh and b."""
    random, G = numpy.random.default_rng(seed), 4 * N if cell == "lstm" else N
    states = [(B, N)] * (2 if cell == "lstm" else 1)
    return [random.standard_normal(shape) for shape in [(B, T, I), *states, (I, G), (N, G), (G,)]]


def run(
    subject: Subject, cell: str, *arrays: Any, token_mask: Any = None
) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    """(y, and for the LSTM c_T), and the pullback."""
    y, back = subject.operation(cell)(*arrays, token_mask=token_mask)
    return (y if isinstance(y, tuple) else (y,)), back


def last_states(values: tuple[Any, ...]) -> list[Any]:
    return [values[0][:, -1], *values[1:]]


def exact_step(cell: str, x: list[Any], states: list[list[Any]], W: Any, U: Any, b: Any) -> list[list[Any]]:
    """One step of one text by the formula, with mpmath's numbers."""
    h = states[0]
    sums = [
        sum((xi * w[j] for xi, w in zip(x, W, strict=True)), mpmath.mpf(b[j]))
        + sum((hi * u[j] for hi, u in zip(h, U, strict=True)), mpmath.mpf(0))
        for j in range(len(b))
    ]
    if cell == "rnn":
        return [[mpmath.tanh(z) for z in sums]]
    N = len(h)
    i, f, o = ([1 / (1 + mpmath.exp(-z)) for z in sums[k * N : (k + 1) * N]] for k in (0, 1, 3))
    g = [mpmath.tanh(z) for z in sums[2 * N : 3 * N]]
    c = [fk * ck + ik * gk for fk, ck, ik, gk in zip(f, states[1], i, g, strict=True)]
    return [[ok * mpmath.tanh(ck) for ok, ck in zip(o, c, strict=True)], c]


@every_cell
@pytest.mark.parametrize("magnitude", [0.3, 5.0])
def test_every_step_is_the_formula_of_the_step(cell: str, magnitude: float, subject: Subject) -> None:
    x, *rest = arguments(cell, 2, 4, 3, 2)
    states, (Wx, Wh, b) = rest[:-3], [magnitude * a for a in rest[-3:]]
    values, _ = run(subject, cell, x, *states, Wx, Wh, b)
    for row in range(2):
        now = [[mpmath.mpf(s) for s in state[row]] for state in states]
        for t in range(4):
            now = exact_step(cell, list(map(mpmath.mpf, x[row, t])), now, Wx.tolist(), Wh.tolist(), b.tolist())
            numpy.testing.assert_allclose(values[0][row, t], [float(z) for z in now[0]], rtol=1e-13, atol=1e-15)
        if cell == "lstm":
            numpy.testing.assert_allclose(values[1][row], [float(z) for z in now[1]], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("z", [-80.0, -30.0, -5.0, 0.0, 30.0, 500.0])
def test_a_shut_gate_keeps_its_digits(dtype: str, z: float, subject: Subject) -> None:
    """With the forget gate alone open by σ(z), the cell is σ(z) c: 1.8e-35 c at z = -80, not 0."""
    zeros = numpy.zeros((1, 1), dtype)
    b = numpy.array([-500, z, 0, 0], dtype)
    (_, c), _ = run(
        subject, "lstm", zeros[None], zeros, numpy.ones((1, 1), dtype), numpy.zeros((1, 4), dtype),
        numpy.zeros((1, 4), dtype), b,
    )  # fmt: skip
    exact = 1 / (1 + math.exp(-z))
    assert abs(float(c[0, 0]) - exact) <= 10 * float(numpy.finfo(dtype).eps) * exact


@every_cell
@settings(max_examples=15)
@given(cut=st.integers(1, 5), seed=st.integers(0, 9))
def test_two_pieces_are_the_whole_forward_and_back(cell: str, cut: int, seed: int, subject: Subject) -> None:
    """The gradient of the second piece's first state is what the first piece's last one takes: through time in two."""
    x, *rest = arguments(cell, 2, 6, 3, 2, seed=seed)
    states, weights = rest[:-3], rest[-3:]
    whole, back = run(subject, cell, x, *states, *weights)
    first, back_first = run(subject, cell, x[:, :cut], *states, *weights)
    second, back_second = run(subject, cell, x[:, cut:], *last_states(first), *weights)
    numpy.testing.assert_allclose(numpy.concatenate([first[0], second[0]], axis=1), whole[0], rtol=1e-12, atol=1e-14)
    for a, b in zip(second[1:], whole[1:], strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)

    random = numpy.random.default_rng(seed)
    dy, *dlast = [random.standard_normal(z.shape) for z in whole]
    dx, *ds, dWx, dWh, db = back(dy, *dlast)
    dx2, *ds2, dWx2, dWh2, db2 = back_second(dy[:, cut:], *dlast)
    dy1 = dy[:, :cut].copy()
    dy1[:, -1] += ds2[0]
    dx1, *ds1, dWx1, dWh1, db1 = back_first(dy1, *ds2[1:])
    pieces = [numpy.concatenate([dx1, dx2], axis=1), *ds1, dWx1 + dWx2, dWh1 + dWh2, db1 + db2]
    for a, b in zip(pieces, [dx, *ds, dWx, dWh, db], strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@every_cell
@settings(max_examples=15)
@given(data=st.data(), seed=st.integers(0, 9))
def test_places_without_a_token_might_as_well_not_be_there(
    cell: str, data: st.DataObject, seed: int, subject: Subject
) -> None:
    """Values and gradients of each text, wherever its holes are, are those of the text without them."""
    token_mask = numpy.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=2, max_size=2))
    )
    x, *rest = arguments(cell, 2, 5, 3, 2, seed=seed)
    states, weights = rest[:-3], rest[-3:]
    values, back = run(subject, cell, x, *states, *weights, token_mask=token_mask)
    random = numpy.random.default_rng(seed)
    dy, *dlast = [random.standard_normal(z.shape) for z in values]
    dy *= token_mask[..., None]
    dx, *dstates, dWx, dWh, db = back(dy, *dlast)
    dweights = [numpy.zeros_like(w) for w in weights]
    for row in range(2):
        there, one = token_mask[row], slice(row, row + 1)
        text = x[one][:, there]
        alone, back_alone = run(subject, cell, text, *(s[one] for s in states), *weights)
        numpy.testing.assert_allclose(values[0][row, there], alone[0][0], rtol=1e-12, atol=1e-14)
        dtext, *dbegin, dW, dU, dbias = back_alone(dy[one][:, there], *(d[one] for d in dlast))
        numpy.testing.assert_allclose(dx[one][:, there], dtext, rtol=1e-10, atol=1e-12)
        assert not dx[one][:, ~there].any()
        for whole, part in zip([*values[1:], *dstates], [*alone[1:], *dbegin], strict=True):
            numpy.testing.assert_allclose(whole[one], part, rtol=1e-10, atol=1e-12)
        dweights = [total + part for total, part in zip(dweights, (dW, dU, dbias), strict=True)]
    for total, whole in zip(dweights, (dWx, dWh, db), strict=True):
        numpy.testing.assert_allclose(whole, total, rtol=1e-10, atol=1e-12)


@every_cell
def test_where_there_is_no_token_the_state_passes_with_its_gradient(cell: str, subject: Subject) -> None:
    x, *rest = arguments(cell, 1, 3, 2, 2)
    states = rest[:-3]
    values, back = run(subject, cell, x, *rest, token_mask=numpy.zeros((1, 3), bool))
    assert all(numpy.array_equal(values[0][:, t], states[0]) for t in range(3))
    assert all(numpy.array_equal(a, b) for a, b in zip(values[1:], states[1:], strict=True))
    dx, *dstates, dWx, dWh, db = back(*(numpy.ones_like(z) for z in values))
    assert numpy.array_equal(dstates[0], numpy.full((1, 2), 3.0))
    assert all(numpy.array_equal(d, numpy.ones((1, 2))) for d in dstates[1:])
    assert not any(d.any() for d in (dx, dWx, dWh, db))


@every_cell
def test_what_stands_where_there_is_no_token_does_not_enter(cell: str, subject: Subject) -> None:
    x, *rest = arguments(cell, 2, 4, 3, 2)
    token_mask = numpy.array([[False, True, False, True], [True, True, False, False]])
    other = numpy.where(token_mask[..., None], x, 7)
    one, another = (run(subject, cell, z, *rest, token_mask=token_mask)[0] for z in (x, other))
    assert all(numpy.array_equal(a, b) for a, b in zip(one, another, strict=True))


@every_cell
@given(t=st.integers(1, 5))
def test_later_inputs_do_not_change_earlier_states(cell: str, t: int, subject: Subject) -> None:
    x, *rest = arguments(cell, 2, 6, 3, 2)
    other = x.copy()
    other[:, t:] += 1
    one, another = (run(subject, cell, z, *rest)[0][0] for z in (x, other))
    assert numpy.array_equal(one[:, :t], another[:, :t])
    assert (one[:, t] != another[:, t]).any(axis=-1).all()


def test_an_open_forget_gate_carries_the_cell_and_its_gradient_through_time(subject: Subject) -> None:
    x, h, c, Wx, Wh, b = arguments("lstm", 2, 50, 3, 2)
    Wx, Wh, b = Wx * 0, Wh * 0, b * 0
    b[:2], b[2:4] = -500, 500
    (_, last), back = run(subject, "lstm", x, h, c, Wx, Wh, b)
    assert numpy.array_equal(last, c)
    dc = numpy.ones_like(c)
    assert numpy.array_equal(back(numpy.zeros((2, 50, 2)), dc)[2], dc)


@every_cell
def test_a_sequence_of_no_steps_passes_the_state(cell: str, subject: Subject) -> None:
    x, *rest = arguments(cell, 2, 0, 3, 2)
    values, back = run(subject, cell, x, *rest)
    assert values[0].shape == (2, 0, 2)
    gradients = back(*(numpy.ones_like(z) for z in values))
    assert [d.shape for d in gradients] == [x.shape, *(a.shape for a in rest)]
    if cell == "lstm":
        assert numpy.array_equal(values[1], rest[1])
        assert numpy.array_equal(gradients[2], numpy.ones((2, 2)))


@pytest.mark.own
@every_cell
@pytest.mark.parametrize(
    ("token_mask", "says"),
    [
        (numpy.ones((2, 4), bool), r"must be \(B, T\) = \(2, 3\) to match x \(B, T, I\) = \(2, 3, 3\); got \(2, 4\)"),
        (numpy.ones((2, 3)), "must be boolean, got float64"),
        (numpy.ones(3, bool), r"must be \(B, T\) = \(2, 3\) .*; got \(3,\)"),
    ],
)
def test_a_token_mask_of_another_shape_or_dtype_is_refused(
    cell: str, token_mask: Any, says: str, subject: Subject
) -> None:
    with pytest.raises(ValueError, match=f"{cell}: token_mask {says}"):
        run(subject, cell, *arguments(cell, 2, 3, 3, 2), token_mask=token_mask)


@pytest.mark.own
def test_weights_that_are_not_four_gates_wide_are_refused(subject: Subject) -> None:
    x, h, c, *_ = arguments("lstm", 2, 3, 3, 2)
    with pytest.raises(
        ValueError, match=r"lstm: Wx must be \(I, 4\*N\) = \(., 8\) to match x .* and h .*; got \(., 6\)"
    ):
        run(subject, "lstm", x, h, c, numpy.ones((3, 6)), numpy.ones((2, 6)), numpy.ones(6))
