"""Laws of the switch layer's operations. (MOE)"""

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_tests.subject import Implementation, Subject

RANDOM = numpy.random.default_rng(0)


@pytest.fixture(scope="session")
def gate(subject: Subject) -> Implementation:
    return subject.operation("gate")


@pytest.fixture(scope="session")
def load_balance(subject: Subject) -> Implementation:
    return subject.operation("load_balance")


@pytest.fixture(scope="session")
def dispatch(subject: Subject) -> Implementation:
    return subject.operation("dispatch")


@pytest.fixture(scope="session")
def combine(subject: Subject) -> Implementation:
    return subject.operation("combine")


@pytest.fixture(scope="session")
def expert_matmul(subject: Subject) -> Implementation:
    return subject.operation("expert_matmul")


@pytest.fixture(scope="session")
def expert_linear(subject: Subject) -> Implementation:
    return subject.operation("expert_linear")


def simplex(*shape: int) -> Any:
    p = RANDOM.random(shape)
    return p / p.sum(axis=-1, keepdims=True)


def test_the_gate_is_the_probability_of_the_chosen_expert(gate: Implementation) -> None:
    y, back = gate(numpy.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]), chosen=numpy.array([0, 2]))
    assert y.tolist() == [0.7, 0.4]
    assert back(numpy.array([2.0, -3.0])).tolist() == [[2, 0, 0], [0, 0, -3]]


@given(E=st.integers(1, 6), times=st.integers(1, 5))
def test_an_even_spread_of_tokens_has_the_balance_one(load_balance: Implementation, E: int, times: int) -> None:
    """Whatever the probabilities, for Σ_e P_e = 1: E Σ_e (1 / E) P_e."""
    chosen = numpy.tile(numpy.arange(E), times)
    y, _ = load_balance(simplex(E * times, E), chosen=chosen, token_mask=None)
    assert y == pytest.approx(1, rel=1e-14)


@given(E=st.integers(1, 6), T=st.integers(1, 9), expert=st.integers(0, 5))
def test_all_tokens_surely_with_one_expert_have_the_balance_of_the_number_of_experts(
    load_balance: Implementation, E: int, T: int, expert: int
) -> None:
    chosen = numpy.full(T, expert % E)
    y, _ = load_balance(numpy.eye(E)[chosen], chosen=chosen, token_mask=None)
    assert y == pytest.approx(E, rel=1e-14)


@given(E=st.integers(2, 5), T=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_balance_is_the_shares_of_the_tokens_times_the_mean_probabilities(
    load_balance: Implementation, E: int, T: int, seed: int
) -> None:
    random = numpy.random.default_rng(seed)
    p, chosen = random.random((3, T, E)), random.integers(0, E, (3, T))
    y, _ = load_balance(p, chosen=chosen, token_mask=None)
    for text in range(3):
        shares = [sum(int(c) == e for c in chosen[text]) / T for e in range(E)]
        means = [sum(p[text, t, e] for t in range(T)) / T for e in range(E)]
        assert y[text] == pytest.approx(E * sum(f * m for f, m in zip(shares, means, strict=True)), rel=1e-12)


def test_the_balance_pulls_probability_away_from_the_busy_expert(load_balance: Implementation) -> None:
    """Descent along -dp takes more from the expert with more tokens."""
    chosen = numpy.array([0, 0, 0, 1])
    _, back = load_balance(simplex(4, 3), chosen=chosen, token_mask=None)
    dp = back(numpy.array(1.0))
    assert (dp == dp[0]).all()
    assert dp[0].tolist() == [3 * 3 / 4 / 4, 3 * 1 / 4 / 4, 0]


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_what_does_not_count_is_as_if_it_were_not_there(
    load_balance: Implementation, lengths: list[int], seed: int
) -> None:
    random = numpy.random.default_rng(seed)
    p, chosen = random.random((len(lengths), 5, 3)), random.integers(0, 3, (len(lengths), 5))
    token_mask = numpy.arange(5) < numpy.array(lengths)[:, None]
    y, back = load_balance(p, chosen=chosen, token_mask=token_mask)
    dp = back(numpy.ones(len(lengths)))
    assert not dp[~token_mask].any()
    for text, n in enumerate(lengths):
        alone, back_alone = load_balance(p[text, :n], chosen=chosen[text, :n], token_mask=None)
        assert y[text] == pytest.approx(alone, rel=1e-13)
        numpy.testing.assert_allclose(dp[text, :n], back_alone(numpy.array(1.0)), rtol=1e-13)


def test_tokens_are_put_into_their_slots_and_taken_out_again(dispatch: Implementation, combine: Implementation) -> None:
    """Two texts, two experts with two places each; slot 4 is none."""
    x = RANDOM.standard_normal((2, 4, 3))
    slots = numpy.array([[2, 0, 4, 3], [1, 4, 4, 0]])
    y, _ = dispatch(x, slots=slots, experts=2, capacity=2)
    zero = numpy.zeros(3)
    assert numpy.array_equal(y[0], [[x[0, 1], zero], [x[0, 0], x[0, 3]]])
    assert numpy.array_equal(y[1], [[x[1, 3], x[1, 0]], [zero, zero]])
    g = RANDOM.random((2, 4))
    back_again, _ = combine(y, g, slots=slots)
    assert numpy.array_equal(back_again, numpy.where((slots < 4)[..., None], g[..., None] * x, 0))


@given(seed=st.integers(0, 99), capacity=st.integers(1, 3), experts=st.integers(1, 3))
def test_combine_with_gates_of_one_is_the_pullback_of_dispatch(
    dispatch: Implementation, combine: Implementation, seed: int, capacity: int, experts: int
) -> None:
    random = numpy.random.default_rng(seed)
    slots = random.integers(0, experts * capacity + 1, (2, 4))
    z = random.standard_normal((2, experts, capacity, 3))
    _, back = dispatch(numpy.zeros((2, 4, 3)), slots=slots, experts=experts, capacity=capacity)
    assert numpy.array_equal(combine(z, numpy.ones((2, 4)), slots=slots)[0], back(z))


def test_what_a_token_without_a_slot_would_have_got_does_not_matter(
    dispatch: Implementation, combine: Implementation
) -> None:
    slots = numpy.array([1, 0])
    z = RANDOM.standard_normal((1, 1, 3))
    y, back = combine(z, numpy.ones(2), slots=slots)
    assert not y[0].any()
    dz, dg = back(numpy.array([[7.0] * 3, [1.0] * 3]))
    assert dg[0] == 0
    assert numpy.array_equal(dz[0, 0], numpy.ones(3))
    x = RANDOM.standard_normal((2, 3))
    taken, _ = dispatch(x, slots=slots, experts=1, capacity=1)
    assert numpy.array_equal(taken[0, 0], x[1])


@given(
    leading=st.lists(st.integers(0, 3), max_size=2), E=st.integers(1, 3), K=st.integers(0, 3), seed=st.integers(0, 9)
)
def test_an_expert_has_a_matrix_and_a_bias_of_its_own(
    expert_matmul: Implementation, expert_linear: Implementation, leading: list[int], E: int, K: int, seed: int
) -> None:
    random = numpy.random.default_rng(seed)
    x, W, b = (random.standard_normal(shape) for shape in ((*leading, E, K, 3), (E, 3, 2), (E, 2)))
    y, z = expert_matmul(x, W)[0], expert_linear(x, W, b)[0]
    for e in range(E):
        numpy.testing.assert_allclose(y[..., e, :, :], x[..., e, :, :] @ W[e], rtol=1e-13, atol=1e-14)
        numpy.testing.assert_allclose(z[..., e, :, :], x[..., e, :, :] @ W[e] + b[e], rtol=1e-13, atol=1e-14)


@pytest.mark.own
def test_a_capacity_of_zero_is_refused(dispatch: Implementation) -> None:
    with pytest.raises(ValueError, match="dispatch: capacity must be at least 1, got 0"):
        dispatch(numpy.zeros((3, 2)), slots=numpy.zeros(3, int), experts=2, capacity=0)


@pytest.mark.own
@pytest.mark.parametrize("slot", [-1, 5])
def test_a_slot_that_does_not_exist_is_refused(dispatch: Implementation, combine: Implementation, slot: int) -> None:
    slots = numpy.array([0, slot])
    with pytest.raises(IndexError, match=rf"dispatch: slots must be in \[0, 5\); got {slot}"):
        dispatch(numpy.zeros((2, 3)), slots=slots, experts=2, capacity=2)
    with pytest.raises(IndexError, match=rf"combine: slots must be in \[0, 5\); got {slot}"):
        combine(numpy.zeros((2, 2, 3)), numpy.ones(2), slots=slots)


@pytest.mark.own
def test_a_choice_of_no_expert_is_refused(gate: Implementation, load_balance: Implementation) -> None:
    p, chosen = simplex(2, 3), numpy.array([0, 3])
    with pytest.raises(IndexError, match=r"gate: chosen must be in \[0, 3\); got 3"):
        gate(p, chosen=chosen)
    with pytest.raises(IndexError, match=r"load_balance: chosen must be in \[0, 3\); got 3"):
        load_balance(p, chosen=chosen, token_mask=None)


@pytest.mark.own
def test_experts_that_differ_in_number_are_refused(
    expert_matmul: Implementation, expert_linear: Implementation
) -> None:
    with pytest.raises(ValueError, match=r"expert_matmul: W must be \(E, I, O\) = \(2, 4, O\)"):
        expert_matmul(numpy.zeros((2, 1, 4)), numpy.zeros((3, 4, 5)))
    with pytest.raises(ValueError, match=r"expert_linear: b must be \(E, O\) = \(2, 5\)"):
        expert_linear(numpy.zeros((2, 1, 4)), numpy.zeros((2, 4, 5)), numpy.zeros((3, 5)))
