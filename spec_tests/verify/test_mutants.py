"""The bank of mutants: each is a mistake, each dies, and refllm is whole again afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy
import pytest

from refllm.blocks.feed_forward import ACTIVATIONS
from refllm.models import gpt
from refllm.objectives.classification import class_nll
from refllm.ops.attention import attention
from refllm.ops.layer_norm import layer_norm
from refllm.optim.update import _step
from refllm.verify import corpus, imitations, keywords, matrix, mutants, reference, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case
from refllm.verify.mutants import EQUIVALENT, MUTANTS, Equivalent, Mutant, Site, planted, traced
from refllm.verify.mutants import attention as attention_mutants
from refllm.verify.mutants import beam as beam_mutants
from refllm.verify.mutants import bidirectional as bidirectional_mutants
from refllm.verify.mutants import classification as classification_mutants
from refllm.verify.mutants import contrastive as contrastive_mutants
from refllm.verify.mutants import cross_attention as cross_attention_mutants
from refllm.verify.mutants import earlier as earlier_mutants
from refllm.verify.mutants import feed_forward as feed_forward_mutants
from refllm.verify.mutants import gates as gate_mutants
from refllm.verify.mutants import grouped as grouped_mutants
from refllm.verify.mutants import linear as linear_mutants
from refllm.verify.mutants import llama as llama_mutants
from refllm.verify.mutants import loss as loss_mutants
from refllm.verify.mutants import norms as norm_mutants
from refllm.verify.mutants import optimiser as optimiser_mutants
from refllm.verify.mutants import positions as position_mutants
from refllm.verify.mutants import recurrent as recurrent_mutants
from refllm.verify.mutants import relative as relative_mutants
from refllm.verify.mutants import rotary as rotary_mutants
from refllm.verify.mutants import routing as routing_mutants
from refllm.verify.mutants import sampling as sampling_mutants
from refllm.verify.mutants import schedule as schedule_mutants
from refllm.verify.mutants import switch as switch_mutants
from refllm.verify.mutants.autodiff import Node, constant, differentiable, exp, log, sigmoid, sqrt, tanh, top, where
from refllm.verify.mutants.softmax import average
from refllm.verify.runner import Result

TOPICS_ASKED_FOR = {
    "attention": "ATT/", "mask": "ATT-MASK/", "positions": "PE-", "cache": "GEN/cache", "norms": "LN/", "MLP": "FFN/",
    "loss": "CE/", "backward": "/back-", "optimiser": "ADAM", "schedule": "warmup", "dropout": "DROP/",
    "sampling": "GEN/top-p", "batching": "sentences",
}  # fmt: skip


@pytest.fixture(scope="module")
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


@pytest.fixture(scope="module")
def known() -> imitations.Imitations:
    """What the mutants answer, computed once for all tests here."""
    return imitations.Imitations()


ASKED = {mutant.id for mutant in MUTANTS[::10]}  # of every topic


@pytest.fixture(scope="module")
def table(golden: corpus.Corpus, known: imitations.Imitations) -> matrix.Table:
    """Of every mutant whether it dies, of every tenth what it is taken for."""
    return matrix.measure(golden.cases.values(), "float64", golden.C, known=known, whole=False, asked=ASKED)


@pytest.fixture(scope="module")
def full_table(golden: corpus.Corpus, known: imitations.Imitations) -> matrix.Table:
    return matrix.measure(golden.cases.values(), "float64", golden.C, known=known, whole=False)


def test_every_mutant_dies(table: matrix.Table) -> None:
    assert len(MUTANTS) >= 110
    assert table.survivors == []


def test_no_mutant_dies_of_an_exception(
    table: matrix.Table, golden: corpus.Corpus, known: imitations.Imitations
) -> None:
    """That would be a death that proves nothing. Of operations and blocks, as below."""
    firsts = [(death.mutant, golden.cases[identity]) for death in table.deaths for identity in death.first.values()]
    low = [(mutant, case) for mutant, case in firsts if case.level in (1, 2)]
    assert len(low) > 0.5 * len(MUTANTS)
    assert [mutant.id for mutant, case in low if known.response(mutant, case, mutant.dtype) is None] == []


def test_a_mutant_of_an_operation_dies_on_the_first_three_levels(table: matrix.Table) -> None:
    late = [
        death.mutant.id
        for death in table.deaths
        if min(death.first, default=0) > 3 and any(death.applies[level] for level in (1, 2, 3))
    ]
    # what a cache needs shows where there is one; what only training does, where there is training
    assert [identity for identity in late if not identity.startswith(("GEN/", "ADAMW/"))] == []


def test_the_first_diagnosis_that_is_printed_names_the_mutant_first(table: matrix.Table) -> None:
    assert table.named(1) >= 0.99 * len(ASKED)
    assert table.named(1) + table.named(2) == len(ASKED)


@pytest.mark.slow
def test_the_first_diagnosis_that_is_printed_names_every_mutant_first(
    full_table: matrix.Table, table: matrix.Table
) -> None:
    assert full_table.named(1) >= 0.99 * len(full_table.deaths)
    assert full_table.named(1) + full_table.named(2) == len(full_table.deaths)
    for death, more in zip(table.deaths, full_table.deaths, strict=True):
        assert death.first == more.first
        assert death.named == (more.named if death.mutant.id in ASKED else [])


def test_the_matrix_as_data_counts_what_it_lists(table: matrix.Table) -> None:
    data = matrix.as_data(table)
    assert data["mutants"] == len(MUTANTS) == len(data["matrix"])
    assert data["killed"] == data["mutants"] - len(data["survivors"])
    assert data["named_first"] + data["named_second"] <= data["killed"]
    assert matrix.as_text(table).count("\n") >= len(MUTANTS) + len(EQUIVALENT)


@pytest.mark.slow
def test_the_levels_above_the_first_death_change_no_other_figure(
    golden: corpus.Corpus, full_table: matrix.Table, known: imitations.Imitations
) -> None:
    whole = matrix.measure(golden.cases.values(), "float64", golden.C, known=known, whole=True)
    for death, more in zip(full_table.deaths, whole.deaths, strict=True):
        assert (death.mutant, death.applies, death.named) == (more.mutant, more.applies, more.named)
        assert death.first == {level: more.first[level] for level in [min(more.first)]}
    assert any(len(more.first) > 1 for more in whole.deaths)


@pytest.mark.slow
def test_no_mutant_raises_where_refllm_does_not(golden: corpus.Corpus, known: imitations.Imitations) -> None:
    """An exception would be a death that proves nothing. Where a batch is empty a maximum or a mean has nothing to
    take, and there the mutants are not asked."""
    cases = [c for c in golden.cases.values() if c.level in (1, 2) and c.operation != "resume"]
    cases = [c for c in cases if all(x.size for x in c.inputs.values())]
    answered = {r.case.id for r in _run(golden, cases) if r.status != "fault"}
    raised = [
        (mutant.id, case.id)
        for case in cases
        if case.id in answered
        for mutant in known.relevant(case)
        if known.response(mutant, case, mutant.dtype) is None
    ]
    assert raised == []


@pytest.mark.parametrize("topic", TOPICS_ASKED_FOR)
def test_the_bank_covers(topic: str) -> None:
    assert sum(TOPICS_ASKED_FOR[topic] in f"{mutant.id} {mutant.about}" for mutant in MUTANTS) >= 3


def test_ids_are_unique_and_say_what_they_belong_to(golden: corpus.Corpus) -> None:
    ids = [mutant.id for mutant in MUTANTS] + [equivalent.id for equivalent in EQUIVALENT]
    assert len(set(ids)) == len(ids)
    assert len({mutant.about for mutant in MUTANTS}) >= len(MUTANTS) - 2  # GELU's two forms have mistakes in common
    specs = {case.spec for case in golden.cases.values()}
    assert {mutant.spec for mutant in MUTANTS} <= specs
    assert all(re.fullmatch(r"[A-Z0-9-]+/[a-z0-9-]+", identity) for identity in ids)


def test_an_issue_is_a_page_of_a_public_tracker() -> None:
    issues = [mutant.issue for mutant in MUTANTS if mutant.issue is not None]
    assert len(issues) >= 30
    assert all(re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", issue) for issue in issues)


@pytest.fixture(scope="module")
def unchanged(golden: corpus.Corpus) -> list[tuple[Result, frozenset[Site]]]:
    """What becomes of every case when nothing is changed, and which places of equivalent changes it calls on its way.
    A change in a place that a case never calls cannot change its answer."""
    sites, found = frozenset(map(_site, EQUIVALENT)), []
    with traced(sites) as called:
        for case in golden.cases.values():
            called.clear()
            [result] = _run(golden, [case])
            found.append((result, frozenset(called)))
    return found


def _site(change: Mutant | Equivalent) -> Site:
    return change.original, change.within


@pytest.mark.parametrize("equivalent", EQUIVALENT, ids=lambda e: e.id)
def test_an_equivalent_change_passes_every_case(
    equivalent: Equivalent, golden: corpus.Corpus, unchanged: list[tuple[Result, frozenset[Site]]]
) -> None:
    """Every case that calls what is changed, of which there are some."""
    reached = {result.case.id: result for result, called in unchanged if _site(equivalent) in called}
    assert reached
    with planted(equivalent):
        results = list(_run(golden, [result.case for result in reached.values()]))
    assert [r.case.id for r in results if r.failed and not reached[r.case.id].failed] == []
    assert len(equivalent.proof) > 20


def _run(golden: corpus.Corpus, cases: Any) -> Any:
    return runner.run(Functions("refllm", reference.functions(), {}), cases, "float64", golden.C)


def test_planting_reaches_modules_and_tables_and_ends() -> None:
    x = numpy.array([[1.0, 2.0]])
    relu: Callable[..., Any] = ACTIVATIONS["relu"]
    mutant = Mutant("X/y", relu, "", lambda z: ("planted", None))
    with planted(mutant):
        assert str(ACTIVATIONS["relu"](x)[0]) == "planted"
        assert reference.functions()["relu"](x)[0] == "planted"
    assert ACTIVATIONS["relu"] is mutant.original
    with pytest.raises(RuntimeError), planted(mutant):
        raise RuntimeError
    assert ACTIVATIONS["relu"] is mutant.original


def test_a_trace_has_the_functions_called_by_module_and_by_package_and_ends() -> None:
    inside, everywhere, elsewhere = (layer_norm, "refllm.models.gpt"), (layer_norm, "refllm"), (attention, "refllm")
    x, before = numpy.ones((1, 2)), vars(gpt)["layer_norm"]
    with traced(frozenset({inside, everywhere, elsewhere})) as called:
        reference.functions()["layer_norm"](x, x[0], x[0], eps=1e-5)
        assert called == {everywhere}
        vars(gpt)["layer_norm"](x, x[0], x[0], eps=1e-5)
        assert called == {everywhere, inside}
    assert vars(gpt)["layer_norm"] is before
    before(x, x[0], x[0], eps=1e-5)
    assert called == {everywhere, inside}


def test_planting_within_a_module_leaves_the_others() -> None:
    mutant = Mutant("X/y", layer_norm, "", lambda x, g, b, *, eps: ("planted", None), within="refllm.models.gpt")
    x = numpy.ones((1, 2))
    with planted(mutant):
        assert reference.functions()["layer_norm"](x, x[0], x[0], eps=1e-5)[0] is not None
        assert vars(gpt)["layer_norm"](x, g=x[0], b=x[0], eps=1e-5)[0] == "planted"


def _without_bias(block: Callable[..., Any]) -> Callable[..., Any]:
    """Grouped attention as the golden files ask for it."""

    def answer(x: numpy.ndarray, p: Any, **how: Any) -> tuple[Any, Callable[..., Any]]:
        y, back = block(x, None, p, **how)
        return y, lambda dy: back(dy)[::2]

    return answer


RIGHT: dict[str, tuple[str, Callable[..., Any]]] = {
    "attention": ("attention", attention_mutants.variant()),
    "heads": ("heads", linear_mutants.split(linear_mutants._cut)),
    "self_attention": ("self_attention", linear_mutants.block()),
    "sinusoidal": ("sinusoidal", position_mutants.wave()),
    "add_positions": ("add_positions", position_mutants.row(lambda i, rows: i)),
    "rotary_halves": ("rotary_halves", rotary_mutants.turn(rotary_mutants.halves)),
    "rotary_interleaved": ("rotary_interleaved", rotary_mutants.turn(rotary_mutants.interleaved)),
    "relative_attention": ("relative_attention", relative_mutants.biased()),
    "t5_bias_causal": ("t5_bias_causal", relative_mutants.table(relative_mutants._causal)),
    "t5_bias_bidirectional": ("t5_bias_bidirectional", relative_mutants.table(relative_mutants._bidirectional)),
    "alibi": ("alibi", relative_mutants.slopes(lambda m, d: m * -abs(d))),
    "layer_norm": ("layer_norm", norm_mutants.norm()),
    "rms_norm": ("rms_norm", gate_mutants.norm()),
    "repeat_heads": ("repeat_heads", gate_mutants.repeated(lambda G, n: numpy.repeat(numpy.arange(G), n))),
    "gated_feed_forward": ("gated_feed_forward", llama_mutants.gated(lambda g, h, f: f(g) * h)),
    "grouped_attention": ("grouped_attention", _without_bias(grouped_mutants.grouped())),
    "load_balance": ("load_balance", routing_mutants.balance(routing_mutants.balanced)),
    "dispatch": ("dispatch", routing_mutants.sent(lambda slots, E, K: slots)),
    "combine": ("combine", routing_mutants.brought(lambda made, g, none: made * g)),
    "switch_layer": ("switch_layer", switch_mutants.layer()),
    "info_nce": ("info_nce", contrastive_mutants.contrast()),
    "smoothed_cross_entropy": ("smoothed_cross_entropy", contrastive_mutants.smoothed()),
    "gelu_tanh": ("gelu_tanh", differentiable(feed_forward_mutants.RIGHT["gelu_tanh"])),
    "gelu_erf": ("gelu_erf", differentiable(feed_forward_mutants.RIGHT["gelu_erf"])),
    "relu": ("relu", differentiable(feed_forward_mutants.RIGHT["relu"])),
    "feed_forward": (
        "feed_forward",
        feed_forward_mutants.layer(lambda x, p, f: f(x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]),
    ),
    "cross_entropy": ("cross_entropy", loss_mutants.nll()),
    "soft_cross_entropy": (
        "soft_cross_entropy",
        loss_mutants.soft(places=loss_mutants._soft, mean=average),
    ),
    "warmup_cosine": ("warmup_cosine", lambda *, step, **how: schedule_mutants.schedule()(step, **how)),
    "sample": ("sample", sampling_mutants.sampled()),
    "rnn": ("rnn", recurrent_mutants.simple()),
    "lstm": ("lstm", recurrent_mutants.gated()),
    "window": ("window", earlier_mutants.windows()),
    "bidirectional": ("bidirectional", bidirectional_mutants.both_ways()),
    "cross_attention": ("cross_attention", partial(cross_attention_mutants.reading(), cache=None)),
    "beam_search": ("beam_search", beam_mutants.searched()),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_a_mutant_changes_is_right_when_nothing_is_changed(name: str, golden: corpus.Corpus) -> None:
    """So that a mutant is wrong by its one deviation, and by nothing else."""
    operation, function = RIGHT[name]
    cases = [case for case in golden.cases.values() if case.operation == operation]
    parts = Functions("parts", keywords.as_golden({operation: function}), {})
    results = list(runner.run(parts, cases, "float64", golden.C))
    assert [(r.case.id, r.reason, r.ratio) for r in results if r.status != "pass"] == []


def test_the_parts_of_adam_are_right_when_nothing_is_changed(golden: corpus.Corpus) -> None:
    whole = Mutant("X/y", _step, "", optimiser_mutants.step())
    with planted(whole):
        results = list(_run(golden, [c for c in golden.cases.values() if c.operation in ("adam", "adamw")]))
    assert len(results) > 10
    assert all(r.status == "pass" for r in results)


def test_the_parts_of_a_classifiers_loss_are_right_when_nothing_is_changed(golden: corpus.Corpus) -> None:
    with planted(Mutant("X/y", class_nll, "", classification_mutants.nll())):
        results = list(_run(golden, [c for c in golden.cases.values() if c.operation == "classifier_loss"]))
    assert any("weights" in r.case.keywords for r in results)
    assert all(r.status == "pass" for r in results)


EXPRESSIONS: dict[str, Callable[[Node, Node], Node]] = {
    "sum": lambda x, y: x + 2.0 - y + (1.0 - x),
    "product": lambda x, y: x * y * 3.0 * numpy.arange(3.0),
    "quotient": lambda x, y: x / (y * y + 1.0) + 1.0 / (x * x + 2.0),
    "power": lambda x, y: (x * x + 1.0) ** 1.5 + y,
    "matrix product": lambda x, y: x @ y.swap() @ x,
    "vector times matrix": lambda x, y: x[0] @ y.swap() + x.sum(),
    "functions": lambda x, y: exp(x) * tanh(y) + log(x * x + 1.0) * sigmoid(y) - sqrt(y * y + 1.0),
    "row picked twice": lambda x, y: x[numpy.array([0, 0, 1])] + y[numpy.array([1])],
    "reductions": lambda x, y: x.mean(None) * y.sum(0) + x.sum(-1) - y.mean(-1),
    "where": lambda x, y: where(x.value > 0, x * y, 2.0 * y),
    "reshaped": lambda x, y: x.reshape(3, 2) @ y.swap(0, 1).reshape(2, 3),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_differentiation_agrees_with_difference_quotients(name: str) -> None:
    generator = numpy.random.default_rng(3)
    operation = differentiable(EXPRESSIONS[name])
    x, y = generator.standard_normal((2, 2, 3))
    value, back = operation(x, y)
    dvalue = generator.standard_normal(value.shape)
    for number, gradient in enumerate(back(dvalue)):
        expected = numpy.empty_like(x)
        for i in numpy.ndindex(x.shape):
            step = numpy.zeros_like(x)
            step[i] = 1e-6
            above, below = ([x, y] for _ in range(2))
            above[number], below[number] = above[number] + step, below[number] - step
            expected[i] = ((operation(*above)[0] - operation(*below)[0]) * dvalue).sum() / 2e-6
        numpy.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


def test_a_constant_has_no_gradient_and_keeps_its_value() -> None:
    operation = differentiable(lambda x: x * constant(x) + top(x))
    y, back = operation(numpy.array([[1.0, 3.0]]))
    numpy.testing.assert_array_equal(y, [[4.0, 12.0]])
    numpy.testing.assert_array_equal(back(numpy.ones((1, 2))), [[1.0, 3.0]])


def test_a_mutant_of_the_forward_pass_has_the_gradient_of_what_it_computes() -> None:
    """Attention without the scale is attention of queries that are √d_k times as large."""
    q, k, v = numpy.random.default_rng(5).standard_normal((3, 2, 4, 3))
    mutant = next(m for m in MUTANTS if m.id == "ATT/no-scale")
    y, back = mutant.function(q, k, v, causal=True, attention_mask=None)
    expected, back_expected = attention(q * 3**0.5, k, v, causal=True, attention_mask=None)
    numpy.testing.assert_allclose(y, expected, rtol=1e-12)
    dq, dk, dv = back_expected(v)
    for got, wanted in zip(back(v), (dq * 3**0.5, dk, dv), strict=True):
        numpy.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-13)


def test_a_case_knows_the_mutants_of_the_functions_that_it_calls(golden: corpus.Corpus) -> None:
    known = imitations.Imitations()

    def ids(case: Case) -> set[str]:
        return {mutant.id for mutant in known.relevant(case)}

    assert "ATT/no-scale" in ids(golden.cases["ATT/square"])
    assert "LN/eps-outside" not in ids(golden.cases["ATT/square"])
    assert {"ATT/no-scale", "LN/eps-outside", "NLL/sum"} <= ids(golden.cases["NLL/gpt2"])
    assert "FFN/relu-leaky" not in ids(golden.cases["NLL/gpt2"])
    assert mutants.MUTANTS
