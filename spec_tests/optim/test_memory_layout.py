"""How arrays lie in memory changes no number of an optimiser. A rule of `refllm.optim.update` is found by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.optim import update
from refllm.optim.clip import clip_factor
from spec_tests.layouts import LAYOUTS, constant_along, layouts, relaid

RULES = {
    name: rule
    for name, rule in vars(update).items()
    if inspect.isfunction(rule) and rule.__module__ == update.__name__ and not name.startswith("_")
}
HYPER: dict[str, Any] = {
    "step": 3, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "momentum": 0.9, "decay": 0.1,
}  # fmt: skip
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
SHAPES = st.sampled_from([(), (1,), (7,), (0,), (3, 4), (2, 0, 3), (2, 3, 4), (2, 40_000)])


def the_arrays(rule: Callable[..., Any]) -> list[str]:
    """The names of the arrays that a rule takes, in their order: parameter, gradient, state."""
    return [p.name for p in inspect.signature(rule).parameters.values() if p.kind is not p.KEYWORD_ONLY]


def how(rule: Callable[..., Any]) -> dict[str, Any]:
    names = [p.name for p in inspect.signature(rule).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {name: HYPER[name] for name in names if name != "out"}


def drawn(rule: Callable[..., Any], shape: tuple[int, ...], dtype: str, seed: int) -> list[Any]:
    random = numpy.random.default_rng(seed)
    arrays = [numpy.asarray(random.standard_normal(shape), dtype) for _ in the_arrays(rule)]
    return [*arrays[:-1], numpy.square(arrays[-1], out=arrays[-1])]  # the last may be an average of squares


def test_every_rule_is_found() -> None:
    assert {"sgd", "adam", "adamw"} <= RULES.keys()
    assert all(the_arrays(rule)[:2] == ["p", "g"] for rule in RULES.values())


@every_rule
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data(), shape=SHAPES, seed=st.integers(0, 999))
def test_memory_layout_does_not_matter(
    rule: Callable[..., Any], dtype: str, data: st.DataObject, shape: tuple[int, ...], seed: int
) -> None:
    arrays = drawn(rule, shape, dtype, seed)
    for i in data.draw(st.sets(st.sampled_from(range(len(arrays))))):
        arrays[i] = constant_along(arrays[i], data.draw(st.sampled_from([0, -1])))
    expected = rule(*arrays, **how(rule))
    given_ = [relaid(x, data.draw(layouts)) for x in arrays]
    for a, b in zip(expected, rule(*given_, **how(rule)), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert numpy.array_equal(a, b)


@every_rule
@given(data=st.data(), shape=SHAPES, seed=st.integers(0, 999))
def test_results_are_written_where_out_says_whatever_its_layout(
    rule: Callable[..., Any], data: st.DataObject, shape: tuple[int, ...], seed: int
) -> None:
    """Over the arguments themselves, or into arrays full of something else."""
    arrays = drawn(rule, shape, "float64", seed)
    expected = rule(*arrays, **how(rule))
    p, g, *state = (relaid(x, data.draw(writable_layouts), writable=True) for x in arrays)
    out: tuple[Any, ...] = (p, *state)
    if data.draw(st.booleans()):
        out = tuple(relaid(numpy.full_like(x, 7), data.draw(writable_layouts), writable=True) for x in out)
    results = rule(p, g, *state, **how(rule), out=out)
    for new, own, wanted in zip(results, out, expected, strict=True):
        assert new is own
        assert numpy.array_equal(own, wanted)


writable_layouts = st.sampled_from([name for name in LAYOUTS if not name.startswith("broadcast")])


@every_rule
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_returned_is_the_callers_own(rule: Callable[..., Any], layout: str) -> None:
    given_ = [relaid(x, layout) for x in drawn(rule, (3, 4), "float64", 0)]
    results = rule(*given_, **how(rule))
    for i, a in enumerate(results):
        a[...] = 0  # may be written to
        assert not any(numpy.shares_memory(a, b) for b in (*given_, *results[:i]))


@every_rule
def test_a_gradient_in_the_memory_of_a_result_is_read_before_it_is_overwritten(rule: Callable[..., Any]) -> None:
    p, g, *state = drawn(rule, (3, 4), "float64", 0)
    expected = rule(p, g, g, *state[1:], **how(rule))
    both = g.copy()
    got = rule(p, both, both, *state[1:], **how(rule), out=(p, both, *state[1:]))
    for a, b in zip(got, expected, strict=True):
        assert numpy.array_equal(a, b)


@every_rule
def test_an_out_that_cannot_hold_the_results_is_refused_and_nothing_is_written(rule: Callable[..., Any]) -> None:
    p, g, *state = drawn(rule, (6,), "float64", 0)
    own = (p, *state)
    locked = p.copy()
    locked.setflags(write=False)
    both = numpy.zeros(9)
    wrong = {
        "out must be the arrays": own[:-1],
        r"of out must be \(\.\.\.\) = \(6,\), float64, as p is; got \(7,\)": (numpy.zeros(7), *state),
        "got .*float32": (p.astype("float32"), *state),
        "p' of out is read-only": (locked, *state),
        "shares memory with another result": (both[:6], both[3:], *own[2:]),
    }
    before = [x.copy() for x in (p, g, *state)]
    for message, out in wrong.items():
        with pytest.raises(ValueError, match=f"^{rule.__name__}: .*{message}"):
            rule(p, g, *state, **how(rule), out=out)
    assert all(map(numpy.array_equal, before, (p, g, *state)))


@given(data=st.data(), seed=st.integers(0, 999))
def test_the_norm_of_gradients_does_not_depend_on_their_layout(data: st.DataObject, seed: int) -> None:
    random = numpy.random.default_rng(seed)
    gradients = [numpy.asarray(random.standard_normal(shape)) for shape in ((3, 4), (), (5,), (2, 3, 4))]
    expected = clip_factor(gradients, limit=0.5)
    assert clip_factor([relaid(g, data.draw(layouts)) for g in gradients], limit=0.5) == pytest.approx(expected, 1e-14)
