"""Who settles otherwise what a formula leaves open, and says so, is right; who does not say so is told what to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import corpus, reference, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Response
from refllm.verify.imitations import Mistaken
from refllm.verify.mutants import MUTANTS

GOLDEN = corpus.load(corpus.folder(None))
# What changes refllm, the operations whose cases are put to it, and the convention that it then follows.
BY_MUTANT = [
    ("ATT-MASK/top-left", ("attention",), {"causal_alignment": "top-left"}),
    ("ATT-MASK/nan-if-nothing", ("attention",), {"empty_row": "nan"}),
    ("ATT-MASK/uniform-if-nothing", ("attention",), {"empty_row": "mean"}),
    ("SMX/nan-if-nothing", ("softmax",), {"empty_softmax": "nan"}),
    ("CE/nan-if-nothing", ("cross_entropy",), {"empty_mean": "nan"}),
    ("CE/soft-back-targets-sum-to-one", ("soft_cross_entropy",), {"soft_targets": "sum-to-one-in-gradient"}),
    ("FFN/relu-back-one-at-zero", ("relu",), {"relu_at_zero": "1"}),
    ("FFN/relu-back-half-at-zero", ("relu",), {"relu_at_zero": "half"}),
    ("SGD/dampened", ("sgd",), {"sgd_damping": "one-minus-momentum"}),
    ("SGD/rate-inside", ("sgd",), {"sgd_velocity": "rate-inside-negative"}),
    ("SGD/clip-eps", ("clip_by_global_norm",), {"clip_eps": "1e-6"}),
    ("ADAM/eps-inside", ("adam", "adamw"), {"adam_eps": "inside-root"}),
    ("ADAM/eps-before-correction", ("adam", "adamw"), {"adam_eps": "before-correction"}),
    ("ADAMW/decay-after-step", ("adamw",), {"decay_order": "after-step"}),
    ("GEN/top-k-ties", ("sample",), {"top_k_ties": "all"}),
    ("GEN/top-k-later-of-equals", ("sample",), {"top_k_ties": "higher-index"}),
]


def results(operations: tuple[str, ...], mine: runner.Implementation) -> list[runner.Result]:
    cases = [case for case in GOLDEN.cases.values() if case.operation in operations]
    return list(runner.run(mine, cases, "float64", GOLDEN.C))


def check(
    operations: tuple[str, ...], mine: Callable[[dict[str, str]], runner.Implementation], declared: dict[str, str]
) -> None:
    """`mine` is an implementation that declares these conventions."""
    silent, said = (results(operations, mine(d)) for d in ({}, declared))
    key = ",".join(f"{name}={value}" for name, value in declared.items())
    told = {r.reason for r in silent if r.status == "convention"}
    assert key in told
    assert {r.case.id: r.reason for r in silent if r.wrong} == {}
    assert {r.case.id: (r.status, [v.message for v in r.verdicts if v.wrong]) for r in said if r.failed} == {}
    assert sum(r.case.id in {s.case.id for s in silent if s.failed} for r in said if r.status in ("pass", "value")) > 0


@pytest.mark.parametrize(("identity", "operations", "declared"), BY_MUTANT, ids=[row[0] for row in BY_MUTANT])
def test_a_declared_convention_is_right_and_an_undeclared_one_is_named(
    identity: str, operations: tuple[str, ...], declared: dict[str, str]
) -> None:
    [mutant] = [mutant for mutant in MUTANTS if mutant.id == identity]
    check(operations, lambda conventions: Mistaken(mutant, conventions), declared)


def velocity(sign: int, damped: bool) -> Callable[..., Any]:
    def sgd(p: Array, g: Array, v: Array, *, lr: float, momentum: float) -> tuple[Array, Array]:
        v = momentum * v + sign * lr * g * (1 - momentum if damped else 1)
        return p - sign * v, v

    return sgd


def mean_of_nothing(h: Array, *, valid: Array | None) -> Array:
    counted = numpy.ones(h.shape[:-1], bool) if valid is None else valid
    with numpy.errstate(invalid="ignore"):
        mean: Array = (h * counted[..., None]).sum(axis=-2) / counted.sum(axis=-1)[..., None]
    return mean


def later_of_equals(logits: Array, *, top_p: float | None, **how: Any) -> Array:
    """The tokens in reverse, and the uniform numbers from the other end, where top_p alone decides."""
    ties = top_p is not None and how["top_k"] is None and len(numpy.unique(logits[0])) < logits.shape[-1]
    if not ties:
        return numpy.asarray(reference.functions()["sample"](logits, top_p=top_p, **how))
    e = numpy.exp(logits - logits.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    order = numpy.lexsort((-numpy.arange(p.shape[-1]), -p[0]))
    kept = order[: int((p[0][order].cumsum() < top_p).sum()) + 1]
    p = numpy.where(numpy.isin(numpy.arange(p.shape[-1]), kept), p, 0)
    sums = numpy.cumsum(p / p.sum(axis=-1, keepdims=True), axis=-1)
    return numpy.asarray((sums > how["uniforms"][:, None]).argmax(axis=-1))


BY_FUNCTION = [
    ("sgd", velocity(1, False), {"sgd_velocity": "rate-inside"}),
    ("sgd", velocity(-1, True), {"sgd_velocity": "rate-inside-negative", "sgd_damping": "one-minus-momentum"}),
    ("mean_pool", mean_of_nothing, {"empty_mean": "nan"}),
    ("sample", later_of_equals, {"top_p_ties": "higher-index"}),
    ("warmup_cosine", lambda step, **how: (
        how["peak"] if step == how["warmup"] else reference.functions()["warmup_cosine"](step=step, **how)
    ), {"warmup_is_all": "peak"}),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "function", "declared"), BY_FUNCTION, ids=[str(row[2]) for row in BY_FUNCTION])
def test_so_is_one_that_no_mutant_follows(operation: str, function: Any, declared: dict[str, str]) -> None:
    check((operation,), lambda conventions: Functions("mine", {operation: function}, conventions), declared)


def test_every_value_of_every_convention_has_answers() -> None:
    held = {pair for case in GOLDEN.cases.values() for key in case.alternatives for pair in key.split(",")}
    named = {name for case in GOLDEN.cases.values() for name in case.conventions}
    assert {pair.partition("=")[0] for pair in held} == named
    for name in named:
        own = {case.conventions[name] for case in GOLDEN.cases.values() if name in case.conventions}
        assert len(own) == 1  # all cases follow one value


def test_where_nan_is_the_answer_it_must_be_the_answer() -> None:
    case = GOLDEN.cases["SMX/softmax-nothing-left"].under({"empty_softmax": "nan"})
    assert case is not None
    right = case.outputs["y"].value
    assert numpy.isnan(right).any()
    for y, wrong in ((right, False), (numpy.nan_to_num(right), True), (numpy.full_like(right, numpy.nan), True)):
        found = runner.judge(case, Response({"y": y}, None), "float64", GOLDEN.C)
        assert any(verdict.wrong for verdict in found) == wrong
