"""A plan stores what it names in the type that it says, and what follows from that is in the spread."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm import spec
from refllm.backend import Array
from refllm.errors import UserError
from refllm.numbers import named
from refllm.numbers.plans import Plan, plan

NAMES = ["eager", "fused"]
DTYPES = ["float64", "float32", "tf32", "float16", "bfloat16"]
PLAIN = {"causal": False, "attention_mask": None}


def drawn(*shape: int, seed: int = 0) -> Array:
    """Numbers of eight significant bits."""
    mantissa, exponent = numpy.frexp(numpy.random.default_rng([seed, *shape]).standard_normal(shape))
    found: Array = numpy.ldexp(numpy.rint(mantissa * 256), exponent - 8)
    return found


def attention(how: Plan, **scale: float) -> tuple[dict[str, Any], dict[str, Any]]:
    q, k, v, dy = (drawn(2, 5, 8, seed=i) * scale.get("qkvd"[i], 1.0) for i in range(4))
    return how.evaluate("attention", {"q": q, "k": k, "v": v}, PLAIN, {"y": dy})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_come_by_name(name: str, dtype: str) -> None:
    how = plan(name, dtype)
    values, gradients = attention(how)
    assert (list(values), list(gradients)) == (["y"], ["q", "k", "v"])
    for x in (*values.values(), *gradients.values()):
        assert (how.deviation(x) > 0).all()
        assert numpy.isfinite(how.deviation(x)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_narrower_type_has_the_larger_spread(name: str) -> None:
    typical = [numpy.median(plan(name, x).deviation(attention(plan(name, x))[0]["y"])) for x in DTYPES]
    assert typical == sorted(typical)


def test_eager_rounds_no_less_than_fused() -> None:
    eager, fused = (plan(name, "bfloat16").deviation(attention(plan(name, "bfloat16"))[1]["q"]) for name in NAMES)
    assert (eager > fused).all()


def test_what_is_stored_twice_in_a_type_is_rounded_once() -> None:
    """The scores are named anew when they are masked; -∞ is a number of every type."""
    inputs, dy = {"q": drawn(4, 8), "k": drawn(4, 8, seed=1), "v": drawn(4, 8, seed=2)}, {"y": drawn(4, 8, seed=3)}
    how = plan("eager", "bfloat16")
    plain = how.evaluate("attention", inputs, PLAIN, dy)[0]["y"]
    masked = how.evaluate("attention", inputs, {"causal": False, "attention_mask": numpy.ones((4, 4), bool)}, dy)[0][
        "y"
    ]
    numpy.testing.assert_array_equal(plain.variance, masked.variance)


def test_a_word_of_the_golden_files_is_the_names_of_the_text() -> None:
    said = [{"stored": dict.fromkeys(names, "bfloat16")} for names in (["probabilities"], ["P", "p"])]
    first, second = (attention(plan(each, "float32"))[0]["y"].variance for each in said)
    numpy.testing.assert_array_equal(first, second)
    assert (first > attention(plan({}, "float32"))[0]["y"].variance).all()


def test_factors_of_products_in_tf32_are_rounded_unless_they_are_short() -> None:
    how = plan("fused", "tf32")
    short, long = drawn(4, 64), drawn(4, 64) * (1 + 2.0**-15)
    W = drawn(64, 3, seed=1)
    exact, rounded = (how.evaluate("matmul", {"x": x, "W": W}, {})[0]["y"].variance for x in (short, long))
    assert (rounded > 1000 * exact).all()


def test_a_longer_chain_and_a_narrower_accumulator_have_a_larger_spread() -> None:
    x, W = abs(drawn(4, 512)), abs(drawn(512, 3, seed=1))

    def variance(**said: Any) -> Array:
        found: Array = plan(said, "float32").evaluate("matmul", {"x": x, "W": W}, {})[0]["y"].variance
        return found

    assert (variance(chain=512) > 4 * variance(chain=16)).all()
    assert (variance(accumulate="bfloat16") > 1e6 * variance()).all()


def test_what_overflows_float16_is_not_judged_and_the_rest_is() -> None:
    how = plan("fused", "float16")
    x, W = numpy.array([[256.0, 256.0], [1.0, 1.0]]), numpy.array([[256.0, 1.0], [255.0, 1.0]])
    y = how.evaluate("matmul", {"x": x, "W": W}, {})[0]["y"]
    numpy.testing.assert_array_equal(numpy.isinf(how.deviation(y)), [[True, False], [False, False]])
    numpy.testing.assert_array_equal(y.value, x @ W)


def test_what_is_below_the_smallest_normal_number_of_float16_keeps_its_absolute_precision() -> None:
    x = numpy.array([[-12.0, -14.0, 0.0]])
    y = plan("fused", "float16").evaluate("softmax", {"x": x}, {})[0]["y"]
    deviation = numpy.sqrt(y.variance)
    assert deviation[0, 0] == pytest.approx(deviation[0, 1])
    assert 2.0**-26 < deviation[0, 0] < 2.0**-24


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("flash", '"eager" and "fused"'),
        (7, "or a dict"),
        ({"store": {}}, "'store'"),
        ({"chain": 0}, "chain must be"),
        ({"chain": True}, "chain must be"),
        ({"accumulate": "float8"}, "accumulate must be one of"),
        ({"stored": {"probabilites": "bfloat16"}}, "'probabilites'"),
        ({"stored": {"P": "half"}}, "stored['P'] must be one of"),
        ({"stored": ["P"]}, "must be a dict"),
    ],
)
def test_what_is_no_plan_is_one_clear_line(said: Any, problem: str) -> None:
    with pytest.raises(UserError) as error:
        plan(said, "bfloat16", "mine.py: PLAN")
    assert problem in str(error.value)
    assert str(error.value).startswith("mine.py: PLAN")
    assert "\n" not in str(error.value)


def test_every_function_of_the_text_shows_what_it_names() -> None:
    assert set(named.functions()) == set(spec.operations())
    assert {"P", "dP", "s", "ds", "n", "Z"} <= named.names()
