"""Laws of rotary positions, in both layouts."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_tests.subject import Implementation, Subject

LAYOUTS = ("rotary_halves", "rotary_interleaved")


@pytest.fixture(scope="session", params=LAYOUTS)
def rotary(subject: Subject, request: pytest.FixtureRequest) -> Implementation:
    return subject.operation(request.param)


def _pairs(name: str, D: int) -> list[tuple[int, int]]:
    half = D // 2
    return [(i, i + half) if name == "rotary_halves" else (2 * i, 2 * i + 1) for i in range(half)]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(
    position=st.sampled_from([0, 1, 511, 16383, 16384]) | st.integers(0, 20000), D=st.sampled_from([2, 4, 6, 64, 128]),
    base=st.sampled_from([10000.0, 500000.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_every_pair_turns_by_the_angle_that_mpmath_gives(
    subject: Subject, name: str, dtype: str, position: int, D: int, base: float, seed: int
) -> None:
    """In float32 to its last digits at any position: a float32 angle of 16384 has an error of 1e-3."""
    x = numpy.random.default_rng(seed).standard_normal((1, D)).astype(dtype)
    y = subject.operation(name)(x, positions=numpy.array([position]), base=base)[0][0]
    unit = float(numpy.finfo(dtype).eps)
    tolerance = 4 * unit + 4 * float(numpy.finfo("float64").eps) * position  # the angle's own rounding, in float64
    with mpmath.workdps(40):
        for i, (a, b) in enumerate(_pairs(name, D)):
            angle = position * mpmath.mpf(base) ** (mpmath.mpf(-2 * i) / D)
            turned = mpmath.mpc(float(x[0, a]), float(x[0, b])) * mpmath.expj(angle)
            length = float(abs(turned))
            assert abs(float(y[a]) - float(turned.real)) <= tolerance * length
            assert abs(float(y[b]) - float(turned.imag)) <= tolerance * length


@given(m=st.integers(0, 2000), n=st.integers(0, 2000), shift=st.integers(0, 5000), seed=st.integers(0, 9))
def test_the_product_of_a_query_and_a_key_depends_on_their_distance_alone(
    rotary: Implementation, m: int, n: int, shift: int, seed: int
) -> None:
    q, k = numpy.random.default_rng(seed).standard_normal((2, 1, 8))

    def product(m: int, n: int) -> float:
        (turned_q, _), (turned_k, _) = (
            rotary(z, positions=numpy.array([p]), base=10000.0) for z, p in ((q, m), (k, n))
        )
        return float((turned_q * turned_k).sum())

    assert product(m + shift, n + shift) == pytest.approx(product(m, n), rel=0, abs=1e-10)


@given(seed=st.integers(0, 99))
def test_a_rotation_keeps_the_length_and_turns_back(rotary: Implementation, seed: int) -> None:
    random = numpy.random.default_rng(seed)
    x, positions = random.standard_normal((2, 5, 6)), random.integers(0, 9999, 5)
    y, back = rotary(x, positions=positions, base=10000.0)
    numpy.testing.assert_allclose((y * y).sum(axis=-1), (x * x).sum(axis=-1), rtol=1e-13)
    numpy.testing.assert_allclose(back(y), x, rtol=1e-12, atol=1e-13)
    assert numpy.array_equal(rotary(x, positions=0 * positions, base=10000.0)[0], x)


def test_the_two_layouts_are_one_rotation_of_entries_in_another_order(subject: Subject) -> None:
    halves, interleaved = (subject.operation(name) for name in LAYOUTS)
    x, positions = numpy.random.default_rng(0).standard_normal((3, 4, 10)), numpy.arange(4) + 7
    order = numpy.arange(10).reshape(2, 5).T.reshape(-1)  # 0, 5, 1, 6, ...
    one = halves(x, positions=positions, base=100.0)[0]
    other = interleaved(x[..., order], positions=positions, base=100.0)[0]
    assert numpy.array_equal(one[..., order], other)
    assert not numpy.allclose(one, interleaved(x, positions=positions, base=100.0)[0])


@pytest.mark.parametrize("shape", [(4,), (3, 1, 4), (3, 2, 4), (1, 4), (1,), ()])
def test_positions_broadcast_to_the_tokens(rotary: Implementation, shape: tuple[int, ...]) -> None:
    random = numpy.random.default_rng(0)
    x, positions = random.standard_normal((3, 2, 4, 6)), random.integers(0, 50, shape)
    y = rotary(x, positions=positions, base=10000.0)[0]
    everywhere = numpy.broadcast_to(positions, (3, 2, 4))
    for i in numpy.ndindex(3, 2, 4):
        alone = rotary(x[i][None], positions=everywhere[i][None], base=10000.0)[0][0]
        assert numpy.array_equal(y[i], alone)


def test_the_first_pair_turns_by_one_radian_a_place(rotary: Implementation) -> None:
    y = rotary(numpy.array([[1.0, 0]]), positions=numpy.array([2]), base=10000.0)[0]
    numpy.testing.assert_allclose(y, [[numpy.cos(2), numpy.sin(2)]], rtol=1e-15)


@pytest.mark.parametrize(
    ("width", "positions", "base", "says"),
    [
        (3, numpy.arange(2), 10000.0, r"x must be \(..., T, 2\*I\); got \(5, 2, 3\)"),
        (4, numpy.arange(2), 0.0, "base must be above 0, got 0.0"),
        (4, numpy.arange(2.0), 10000.0, "positions must be integers, got float64"),
        (4, numpy.arange(3), 10000.0, r"positions must broadcast to \(..., T\) = \(5, 2\) to match x .*; got \(3,\)"),
        (4, numpy.zeros((1, 5, 2), int), 10000.0, r"positions must broadcast to .*; got \(1, 5, 2\)"),
    ],
)
@pytest.mark.own
def test_what_cannot_be_turned_is_refused(
    rotary: Implementation, width: int, positions: Any, base: float, says: str
) -> None:
    with pytest.raises(ValueError, match=f"rotary_\\w+: {says}"):
        rotary(numpy.zeros((5, 2, width)), positions=positions, base=base)


def test_the_angles_are_those_of_the_positions_as_they_are_now(rotary: Implementation) -> None:
    """Angles are kept from call to call. Positions changed in place, and others of the same bytes, are new."""
    x, positions = numpy.random.default_rng(0).standard_normal((2, 4)), numpy.array([3, 5])
    first = rotary(x, positions=positions, base=10000.0)[0]
    positions += 1
    after = rotary(x, positions=positions, base=10000.0)[0]
    assert (after != first).all()
    assert (after == rotary(x, positions=numpy.array([4, 6]), base=10000.0)[0]).all()
    narrow = numpy.array([4, 0, 6, 0], "int32")  # the bytes of [4, 6] in int64
    wide = rotary(numpy.concatenate([x, x]), positions=narrow, base=10000.0)[0]
    assert (wide[1] == x[1]).all()
    assert (wide[0] == after[0]).all()
