"""A plan stores what it names in the type that it says, and what follows from that is in the spread."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from refllm import spec
from refllm.backend import Array
from refllm.errors import UserError
from refllm.numbers import named
from refllm.numbers.plans import Plan, plan
from refllm.numbers.spread_value import Spread
from refllm.verify.kernels import machine

NAMES = ["eager", "fused", "narrow"]
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
    eager, fused = (plan(name, "bfloat16").deviation(attention(plan(name, "bfloat16"))[1]["q"]) for name in NAMES[:2])
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


def layer_norm(how: Plan) -> dict[str, Array]:
    """The variances of the value and the gradients."""
    inputs = {"x": 8 + drawn(65, 33) / 16, "g": drawn(33, seed=1), "b": drawn(33, seed=2)}
    found = how.evaluate("layer_norm", inputs, {"eps": 1e-5}, {"y": drawn(65, 33, seed=3)})
    return {name: x.variance for part in found for name, x in part.items()}


def test_narrow_is_eager_but_for_sums_over_rows_and_the_mean_that_the_pullback_reads() -> None:
    eager, narrow = (layer_norm(plan(name, "bfloat16")) for name in ("eager", "narrow"))
    numpy.testing.assert_array_equal(eager["y"], narrow["y"])
    for name, more in (("x", 1.2), ("g", 1.5), ("b", 4)):
        assert numpy.median(narrow[name]) > more * numpy.median(eager[name])
    x, W = drawn(33, 257), drawn(257, 5, seed=1)
    same = (
        plan(name, "bfloat16").evaluate("matmul", {"x": x, "W": W}, {})[0]["y"].variance for name in ("eager", "narrow")
    )
    numpy.testing.assert_array_equal(*same)
    for dtype in ("float64", "float32", "tf32"):
        wide = (layer_norm(plan(name, dtype)) for name in ("eager", "narrow"))
        assert all((a == b).all() for a, b in zip(*(each.values() for each in wide), strict=True))


def test_a_kind_of_sum_has_an_accumulator_of_its_own() -> None:
    x, W, dy = drawn(129, 512), drawn(512, 3, seed=1), drawn(129, 3, seed=2)

    def variance(**said: Any) -> tuple[Array, Array]:
        value, slopes = plan(said, "float32").evaluate("linear", {"x": x, "W": W, "b": drawn(3)}, {}, {"y": dy})
        return value["y"].variance, slopes["b"].variance

    plain = variance()
    products, over_rows = (variance(accumulate={kind: "bfloat16"}) for kind in ("products", "over rows"))
    assert (products[0] > 1e6 * plain[0]).all()
    numpy.testing.assert_array_equal(products[1], plain[1])
    numpy.testing.assert_array_equal(over_rows[0], plain[0])
    assert (over_rows[1] > 1e6 * plain[1]).all()


def test_a_sum_of_blocks_loses_less_in_the_narrow_type_the_longer_they_are() -> None:
    x, W = drawn(4, 2048), drawn(2048, 3, seed=1)

    def variance(**own: Any) -> Array:
        how = plan({"accumulate": {"products": {"type": "bfloat16", **own}}}, "float32")
        found: Array = how.evaluate("matmul", {"x": x, "W": W}, {})[0]["y"].variance
        return found

    terms, short, long, whole = variance(), variance(block=64), variance(block=512), variance(block=2048)
    assert (terms > 8 * short).all()
    assert (short > 2 * long).all()
    assert (long > whole).all()
    assert (variance(chain=16) < terms).all()


def test_a_sum_in_blocks_is_as_far_off_as_its_variance_says() -> None:
    """Blocks of 64 in float32, what they hold in bfloat16: of 512 sums, the mean square of z."""
    x, W = drawn(64, 1024), drawn(1024, 8, seed=1)
    total = numpy.zeros((64, 8), numpy.float32)
    for first in range(0, 1024, 64):
        part = x[:, first : first + 64] @ W[first : first + 64]
        total = machine.narrow(total + part.astype(numpy.float32), "bfloat16")
    how = plan({"accumulate": {"products": {"type": "bfloat16", "block": 64}}}, "bfloat16")
    found = how.evaluate("matmul", {"x": x, "W": W}, {})[0]["y"]
    z = (total - found.value) / how.deviation(found)
    assert 0.4 < float((z * z).mean()) < 1.3


@pytest.mark.parametrize("said", ["fused", {"stored": {"*": "dtype"}, "accumulate": "dtype", "factors": "dtype"}])
def test_what_overflows_float16_is_not_judged_and_the_rest_is(said: Any) -> None:
    """Also where sums are added up in float16, so that storing rounds nothing."""
    how = plan(said, "float16")
    x, W = numpy.array([[256.0, 256.0], [1.0, 1.0]]), numpy.array([[256.0, 1.0], [255.0, 1.0]])
    y = how.evaluate("matmul", {"x": x, "W": W}, {})[0]["y"]
    numpy.testing.assert_array_equal(numpy.isinf(how.deviation(y)), [[True, False], [False, False]])
    numpy.testing.assert_array_equal(y.value, x @ W)


@pytest.mark.parametrize("said", ["fused", {"accumulate": "dtype"}])
def test_what_may_overflow_float16_is_not_judged_either(said: Any) -> None:
    """65,500, which a right implementation has as infinity where it is three deviations of 8 too large."""
    how = plan(said, "float16")
    y = how.arithmetic.stored(Spread([65500.0, 65500.0, -65500.0], [64.0, 0.0, 64.0], how.arithmetic), "float16")
    numpy.testing.assert_array_equal(numpy.isinf(how.deviation(y)), [True, False, True])


def test_what_is_below_the_smallest_normal_number_of_float16_keeps_its_absolute_precision() -> None:
    x = numpy.array([[-12.0, -14.0, 0.0]])
    y = plan("fused", "float16").evaluate("softmax", {"x": x}, {})[0]["y"]
    deviation = numpy.sqrt(y.variance)
    assert deviation[0, 0] == pytest.approx(deviation[0, 1])
    assert 2.0**-26 < deviation[0, 0] < 2.0**-24


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("flash", '"eager", "fused", "narrow"'),
        (7, "or a dict"),
        ({"store": {}}, "'store'"),
        ({"chain": 0}, "chain must be"),
        ({"chain": True}, "chain must be"),
        ({"accumulate": "float8"}, "accumulate must be one of"),
        ({"accumulate": {"columns": "bfloat16"}}, "products, along rows, over rows, scattered"),
        ({"accumulate": {"scattered": "half"}}, "accumulate['scattered'] must be one of"),
        ({"accumulate": {"scattered": {"kind": "bfloat16"}}}, "an accumulator has type, chain, block"),
        ({"accumulate": {"scattered": {"chain": 4}}}, "type must be one of"),
        ({"accumulate": {"scattered": {"type": "bfloat16", "block": 0}}}, "block must be a whole number"),
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


def test_both_customary_forms_of_a_logarithm_of_softmax_are_right_far_from_zero() -> None:
    """(x - max) - log Z, and x - logsumexp(x), which rounds in units of the maximum; bfloat16 stores neither's sum."""
    x, dy = drawn(33, 127) * 64 - 900, drawn(33, 127, seed=1)
    how = plan("eager", "float32")
    values, gradients = how.evaluate("log_softmax", {"x": x}, {}, {"y": dy})
    narrow = x.astype("float32")
    top = narrow.max(axis=-1, keepdims=True)
    total = top + numpy.log(numpy.exp(narrow - top).sum(axis=-1, keepdims=True))
    for y in (narrow - total, (narrow - top) - (total - top)):
        dx = dy.astype("float32") - numpy.exp(y) * dy.astype("float32").sum(axis=-1, keepdims=True)
        for got, known in ((y, values["y"]), (dx, gradients["x"])):
            z = abs(got - known.value) / how.deviation(known)
            assert z.max() < how.limit / 2
    wrong = numpy.float32(900) + numpy.float32(1) * (narrow - total) - numpy.float32(900.001)
    assert (abs(wrong - values["y"].value) > how.limit * how.deviation(values["y"])).any()


def test_a_gradient_formed_of_the_log_sum_exp_is_right_far_from_zero() -> None:
    """e^{x - l}, as autograd and attention kernels form it, rounds in units of the row's largest number."""
    x, dl = drawn(33, 127) * 64 - 900, drawn(33, seed=1)
    how = plan("eager", "float32")
    _, gradients = how.evaluate("log_sum_exp", {"x": x}, {}, {"l": dl})
    narrow, known = x.astype("float32"), gradients["x"]
    top = narrow.max(axis=-1, keepdims=True)
    l = top + numpy.log(numpy.exp(narrow - top).sum(axis=-1, keepdims=True))
    z = abs(numpy.exp(narrow - l) * dl.astype("float32")[:, None] - known.value) / how.deviation(known)
    assert z.max() < how.limit / 2
    other = abs(numpy.exp(narrow - l * numpy.float32(1.00001)) * dl.astype("float32")[:, None] - known.value)
    assert (other > how.limit * how.deviation(known)).any()


def test_a_normal_density_formed_of_the_error_functions_argument_is_right_in_its_tail() -> None:
    """e^{-z²} of z = x / √2, as the derivative of erfc is formed, rounds where x² is exact."""
    x = numpy.linspace(-9, -1, 257)[:, None] * numpy.ones((1, 3))
    how = plan("eager", "float32")
    _, gradients = how.evaluate("gelu_erf", {"x": x}, {}, {"y": numpy.ones_like(x)})
    narrow, known = x.astype("float32"), gradients["x"]
    z = narrow / numpy.sqrt(numpy.float32(2))
    cumulated = numpy.vectorize(math.erfc)(-x / math.sqrt(2)) / 2
    density = numpy.exp(-(z * z)) / numpy.sqrt(numpy.float32(2 * math.pi))
    assert (abs(cumulated + narrow * density - known.value) / how.deviation(known)).max() < how.limit / 2
    other = cumulated + narrow * density * numpy.float32(1.0001)
    assert (abs(other - known.value) > how.limit * how.deviation(known)).any()


def test_a_layer_norm_that_takes_the_mean_off_its_gradient_at_the_end_is_right_far_from_zero() -> None:
    """As autograd goes back through x - mean(x). The rounded mean errs where in the other form it cancels."""
    x, g, dy = drawn(513, 31) / 16 + 7.875, drawn(31, seed=2), drawn(513, 31, seed=1)
    how = plan("eager", "float32")
    inputs, eps = {"x": x, "g": g, "b": 0 * g}, numpy.float32(1e-5)
    _, gradients = how.evaluate("layer_norm", inputs, {"eps": 1e-5}, {"y": dy})
    c = x.astype("float32") - x.astype("float32").mean(axis=-1, keepdims=True)
    r, dn = 1 / numpy.sqrt((c * c).mean(axis=-1, keepdims=True) + eps), (dy * g).astype("float32")
    dc = r * (dn - c * r * (dn * c * r).mean(axis=-1, keepdims=True))
    known = gradients["x"]
    z = abs(dc - dc.mean(axis=-1, keepdims=True) - known.value) / how.deviation(known)
    assert z.max() < how.limit
    assert (abs(dc - known.value) > how.limit * how.deviation(known)).any()
