"""The bank of mutants: each is a mistake, each dies, and refllm is whole again afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.blocks.feed_forward import ACTIVATIONS
from refllm.models import gpt
from refllm.numbers.traced import differentiated
from refllm.ops.attention import attention
from refllm.ops.layer_norm import layer_norm
from refllm.spec.softmax import softmax
from refllm.verify import corpus, imitations, matrix, mutants, plain, reference, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case
from refllm.verify.imitations import Mistaken
from refllm.verify.mutants import EQUIVALENT, MUTANTS, Edited, Equivalent, Patch, edit, planted, traced
from spec_tests.sampling import is_sampled

text = plain.text()["attention"]
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


ASKED = {mutant.id for mutant in MUTANTS[::40]}


@pytest.fixture(scope="module")
def table(golden: corpus.Corpus, known: imitations.Imitations, pytestconfig: pytest.Config) -> matrix.Table:
    """Of every mutant whether it dies, of every fortieth what it is taken for; a sample has every fourth."""
    if not is_sampled(pytestconfig):
        return matrix.measure(golden.cases.values(), "float64", golden.C, known=known, whole=False, asked=ASKED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutants, "MUTANTS", MUTANTS[::4])
        known = imitations.Imitations()  # what is known knows the whole bank
        return matrix.measure(golden.cases.values(), "float64", golden.C, known=known, whole=False, asked=ASKED)


@pytest.fixture(scope="module")
def full_table(golden: corpus.Corpus, known: imitations.Imitations) -> matrix.Table:
    return matrix.measure(golden.cases.values(), "float64", golden.C, known=known, whole=False)


def test_every_mutant_dies(table: matrix.Table) -> None:
    assert len(MUTANTS) > 1_200
    assert len(table.deaths) >= len(MUTANTS) // 4
    assert table.survivors == []


def test_no_mutant_dies_of_an_exception(
    table: matrix.Table, golden: corpus.Corpus, known: imitations.Imitations
) -> None:
    """That would be a death that proves nothing. Of operations and blocks, as below."""
    firsts = [(death.mutant, golden.cases[identity]) for death in table.deaths for identity in death.first.values()]
    low = [(mutant, case) for mutant, case in firsts if case.level in (1, 2)]
    assert len(low) > 0.5 * len(table.deaths)
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
    assert data["mutants"] == len(table.deaths) == len(data["matrix"])
    assert data["killed"] == data["mutants"] - len(data["survivors"])
    assert data["named_first"] + data["named_second"] <= data["killed"]
    assert matrix.as_text(table).count("\n") >= len(table.deaths)


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


def test_what_every_right_answer_loses_in_a_precision_is_no_mistake_there(
    golden: corpus.Corpus, known: imitations.Imitations
) -> None:
    cases = [case for case in golden.cases.values() if case.operation in ("sinusoidal", "clip_by_global_norm")]

    def measured(dtype: str) -> matrix.Table:
        return matrix.measure(cases, dtype, golden.C, known=known, whole=False, every=False, asked=[])

    fine, narrow = measured("float64"), measured("float32")
    assert (fine.survivors, fine.none_here) == (narrow.survivors, []) == ([], [])
    assert narrow.none_here == ["PE-SIN/single-precision"]
    assert len(fine.deaths) == len(narrow.deaths) + 1
    assert matrix.as_text(narrow).endswith("no mistake in this precision: PE-SIN/single-precision\n")


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


@pytest.mark.one_in(24)
@pytest.mark.parametrize("equivalent", EQUIVALENT, ids=lambda e: e.id)
def test_an_equivalent_change_passes_every_case(
    equivalent: Equivalent, golden: corpus.Corpus, request: pytest.FixtureRequest
) -> None:
    """Every case that calls what is changed, of which there are some; by default some thirty of them."""
    reached = [case for case in golden.cases.values() if _reaches(equivalent, case)]
    assert reached
    if not request.config.getoption("--slow"):
        reached = reached[:: -(-len(reached) // 30)]
    results = runner.run(Mistaken(equivalent.change, {}), reached, "float64", golden.C)
    assert [(r.case.id, r.status, r.reason) for r in results if r.failed] == []
    assert len(equivalent.proof) > 20


def _reaches(equivalent: Equivalent, case: Case) -> bool:
    change = equivalent.change
    if isinstance(change, Edited):
        return bool(plain.reached(case, change.originals))
    return case.operation == change.original.__name__


def _run(golden: corpus.Corpus, cases: Any) -> Any:
    return runner.run(Functions("refllm", reference.functions(), {}), cases, "float64", golden.C)


def test_planting_reaches_modules_and_tables_and_ends() -> None:
    x = numpy.array([[1.0, 2.0]])
    relu: Callable[..., Any] = ACTIVATIONS["relu"]
    mutant = Patch("X/y", relu, "", lambda z: ("planted", None))
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
    mutant = Patch("X/y", layer_norm, "", lambda x, g, b, *, eps: ("planted", None), within="refllm.models.gpt")
    x = numpy.ones((1, 2))
    with planted(mutant):
        assert reference.functions()["layer_norm"](x, x[0], x[0], eps=1e-5)[0] is not None
        assert vars(gpt)["layer_norm"](x, g=x[0], b=x[0], eps=1e-5)[0] == "planted"


def test_every_line_that_an_edit_takes_out_stands_once_in_the_text() -> None:
    """Else the edit says which line is not there, or is there more than once; and what it makes of the text is Python,
    and other than the text."""
    edited = [mutant for mutant in MUTANTS if isinstance(mutant, Edited)]
    assert len(edited) > 1000
    for mutant in edited:
        for (place, diff), original in zip(mutant.diff, mutant.originals, strict=True):
            assert re.fullmatch(r"spec/\w+\.py:\d+", place), mutant.id
            assert {line[0] for line in diff} <= {"-", "+"}, mutant.id
            assert diff, f"{mutant.id} changes nothing in {original.__name__}"
        assert mutant.functions.keys() == set(mutant.originals), mutant.id
        assert len(mutant.originals) == len(set(mutant.originals)), f"{mutant.id} edits one function twice"


@pytest.mark.parametrize(
    ("old", "says"),
    [
        ("s = q @ k", "occurs 0 times in refllm.spec.attention.attention: write it as it stands there now"),
        ("", "occurs 0 times"),
        ("y = P @ v\ndq = ds @ k", "occurs 0 times"),
    ],
)
def test_a_line_that_is_not_in_the_text_is_told(old: str, says: str) -> None:
    with pytest.raises(LookupError, match=re.escape(says)):
        _ = Edited("X/y", "", edit(text, old, "pass")).functions


def test_a_line_that_occurs_twice_is_told() -> None:
    def twice(x: Any) -> Any:
        x = x + 1
        x = x + 1
        return [x]

    with pytest.raises(LookupError, match=r"occurs 2 times .* write it once, with the lines around it"):
        _ = Edited("X/y", "", edit(twice, "x = x + 1", "pass")).functions
    function = Edited("X/y", "", edit(twice, "x = x + 1\nreturn [x]", "return [x]")).rewritten[0].edit.source
    assert function.count("x = x + 1") == 1


def test_lines_that_come_stand_as_deep_as_those_that_go() -> None:
    several = edit(text, "dP = dy @ swap(v)", "if causal:\n    dy = 2 * dy\ndP = dy @ swap(v)")
    [(place, diff)] = Edited("X/y", "", several).diff
    assert diff == ["+ if causal:", "+ dy = 2 * dy"]
    assert place.startswith("spec/attention.py:")
    assert Edited("X/y", "", several).functions[text].__name__ == "attention"


def test_an_edit_in_a_pullback_keeps_the_pullbacks_and_any_other_has_the_gradient_of_what_it_computes() -> None:
    forward, backward = edit(text, "y = P @ v", "y = 2 * P @ v"), edit(text, "dv = swap(P) @ dy", "dv = 0 * v")
    assert Edited("X/y", "", forward).traced
    assert not Edited("X/y", "", backward).traced
    assert not Edited("X/y", "", forward + edit(softmax, "return p * (dp - sum(p * dp))", "return p * dp")).traced
    own = edit(text, "y = P @ v", "y = P @ v\n\ndef mine_back(dy):\n    return dy, dy, dy\n")
    assert not Edited("X/y", "", own).traced


def test_a_mutant_of_the_forward_pass_has_the_gradient_of_what_it_computes() -> None:
    """Attention without the scale is attention of queries that are √d_k times as large."""
    q, k, v = numpy.random.default_rng(5).standard_normal((3, 2, 4, 3))
    mutant = next(m for m in MUTANTS if m.id == "ATT/no-scale")
    assert isinstance(mutant, Edited)
    y, back = differentiated(mutant.functions[text])(q, k, v, causal=True, attention_mask=None)
    expected, back_expected = attention(q * 3**0.5, k, v, causal=True, attention_mask=None)
    numpy.testing.assert_allclose(y, expected, rtol=1e-12)
    dq, dk, dv = back_expected(v)
    for got, wanted in zip(back(v), (dq * 3**0.5, dk, dv), strict=True):
        numpy.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-13)


def test_where_a_cache_is_asked_for_the_edited_operation_answers_in_refllm(golden: corpus.Corpus) -> None:
    """Only there does a mask that is aligned top-left hide what is cached; the text has no cache."""
    [mutant] = [m for m in MUTANTS if m.id == "ATT-MASK/top-left"]
    assert isinstance(mutant, Edited)
    [patch] = mutant.patches
    assert patch.original is attention
    for cache in (False, True):
        case = next(c for c in golden.cases.values() if c.keywords.get("cache") is cache and c.operation == "generate")
        response = imitations.respond(mutant, case, "float64")
        assert response is not None
        assert runner.is_wrong(case, response, "float64", golden.C) == cache
    [block] = [m for m in MUTANTS if m.id == "MHA/one-head"]
    assert isinstance(block, Edited)
    assert block.patches == []  # refllm's block of that name is asked for a cache, too


def test_a_case_knows_the_mutants_of_the_functions_that_it_calls(golden: corpus.Corpus) -> None:
    known = imitations.Imitations()

    def ids(case: Case) -> set[str]:
        return {mutant.id for mutant in known.relevant(case)}

    assert "ATT/no-scale" in ids(golden.cases["ATT/square"])
    assert "LN/eps-outside" not in ids(golden.cases["ATT/square"])
    assert {"ATT/no-scale", "LN/eps-outside", "NLL/sum"} <= ids(golden.cases["NLL/gpt2"])
    assert "FFN/relu-leaky" not in ids(golden.cases["NLL/gpt2"])
    assert mutants.MUTANTS
