"""Customary forms of a formula, and what follows other conventions: changes of the text, which quote its lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from golden import conventions, forms, lookouts, truth
from golden.case import Case
from golden.changes import Change, compatible, compiled
from golden.corpus import FILES
from golden.evaluate import Answer, furthest
from refllm.numbers import exact
from refllm.numbers.nodes import conditions
from refllm.verify import corpus, edits

GOLDEN = corpus.load(corpus.folder(None))
CASES = {case.id: case for file in FILES if file.level for case in file.cases}

OF_FORMS = {
    f"{formula} {n} {change.function}": change
    for formula, own in forms.FORMS.items()
    for n, form in enumerate(own, start=1)
    for change in form
}
OF_CONVENTIONS = {
    f"{name}={value} {change.function}": change
    for name, values in conventions.CONVENTIONS.items()
    for value, own in values.items()
    for change in own
}
LOOKING = {f"{change.function} {n}": change for n, change in enumerate(lookouts.lookouts("softmax"))}
CHANGES = {**OF_FORMS, **OF_CONVENTIONS, **LOOKING, **truth.LOOKS}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_line_that_is_quoted_stands_in_its_function_exactly_once(change: Change) -> None:
    lines = [line.strip() for line in edits.source_of(change.original).splitlines()]
    assert change.lines
    for old in change.lines:
        assert lines.count(old) == 1, f"{change.function} has no line (or several): {old}"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_python_and_changes_something(change: Change) -> None:
    (function,) = compiled([change]).values()
    assert callable(function)
    assert change.made(edits.source_of(change.original)) != edits.source_of(change.original)


def test_a_line_that_has_another_name_is_refused() -> None:
    renamed = Change("softmax.softmax", {"p = e / total": "p = e"})
    with pytest.raises(LookupError, match=r"softmax\.softmax has not each of these lines exactly once: p = e / total"):
        compiled([renamed])
    assert not compatible([], [renamed])


# --- forms ------------------------------------------------------------------------------------------------------------

SMALL = {  # a case of each formula, in which its forms differ
    "softmax": ("SMX/softmax-rows", "SMX/softmax-nothing-left"),
    "log_softmax": ("SMX/log-softmax-peaked", "CE/ignore-mean", "CE/smoothed-ignore", "CE/soft-mean"),
    "attention": (
        "ATT-MASK/padding",
        "ATT-MASK/forbidden-row",
        "T5-REL/attention-padding",
        "CAP/attention-heads",
        "LSE/attention-heads",
    ),
    "cosine": ("CTR/cold", "CTR/zero-row"),
    "gelu": ("FFN/gelu-erf",),
    "adam": ("ADAM/large-eps", "ADAMW/decay"),
    "top_experts": ("TOPK/two", "TOPK/batch"),
    "schedule": ("ADAMW/warmup-cosine-2-of-9-step-9-no-floor", "ADAMW/warmup-cosine-4-of-16-step-5"),
}
FORMED = [(formula, id) for formula, ids in SMALL.items() for id in ids]


def test_every_formula_with_several_forms_is_looked_at() -> None:
    assert SMALL.keys() == forms.FORMS.keys()


def in_every_form(case: Case) -> list[Answer]:
    own = forms.of(truth.called(case), case.operation)
    return [truth.answer(case, 60, forms.reading(n, own, [])) for n in range(forms.readings(own))]


@pytest.mark.parametrize(("formula", "id"), FORMED)
def test_the_forms_agree_in_their_values_and_each_pullback_is_the_gradient_of_its_form(formula: str, id: str) -> None:
    first, *others = in_every_form(CASES[id])
    with exact.digits(60):
        for other in others:
            for name, y in first.outputs.items():
                assert furthest(other.outputs[name], y) < -45, name
            for name, dx in first.by_tape.items():
                assert furthest(other.by_tape[name], dx) < -45, name
                assert furthest(other.by_hand[name], dx) < -45, name


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("formula", "id"), FORMED)
def test_the_condition_covers_every_customary_form(formula: str, id: str) -> None:
    stored, formed = GOLDEN.cases[id], in_every_form(CASES[id])
    for part in ("outputs", "gradients"):
        for name, known in getattr(stored, part).items():
            for one in formed:
                array = {"outputs": one.outputs, "gradients": one.by_hand}[part][name]
                with exact.digits(40):
                    own, _ = conditions(list(array.nodes.flat))
                assert (known.condition.reshape(-1) >= own * (1 - 1e-9)).all(), (part, name)


@pytest.mark.one_in(8)
@pytest.mark.parametrize("formula", SMALL)
def test_one_of_the_forms_errs_more_than_the_text(formula: str) -> None:
    """Or the others need not be looked at."""
    wider = False
    for id in SMALL[formula]:
        first, *others = in_every_form(CASES[id])
        for one, other in ((first, other) for other in others):
            for arrays, widened in ((one.outputs, other.outputs), (one.by_hand, other.by_hand)):
                for name, x in arrays.items():
                    with exact.digits(40):
                        (text, _), (form, _) = (conditions(list(z.nodes.flat)) for z in (x, widened[name]))
                    wider |= bool((form > text * (1 + 1e-9)).any())
    assert wider


def test_gelu_by_itself_has_no_form_that_loses_its_tail() -> None:
    alone = next(case for case in CASES.values() if case.operation == "gelu_erf")
    assert "gelu" not in forms.of(truth.called(alone), "gelu_erf")
    assert "gelu" in forms.of(truth.called(CASES["FFN/gelu-erf"]), "feed_forward")


# --- conventions ------------------------------------------------------------------------------------------------------


def with_alternatives() -> list[Any]:
    """A case of each alternative of the files, the least."""
    found: dict[tuple[str, str], str] = {}
    for case in sorted(GOLDEN.cases.values(), key=lambda case: sum(x.size for x in case.inputs.values()), reverse=True):
        for key in case.alternatives:
            found[case.operation, key] = case.id
    return [pytest.param(id, key, id=f"{operation} {key}") for (operation, key), id in sorted(found.items())]


def test_every_value_of_a_convention_is_in_an_alternative() -> None:
    keys = {part for case in GOLDEN.cases.values() for key in case.alternatives for part in key.split(",")}
    values = {f"{n}={v}" for n, own in conventions.CONVENTIONS.items() for v, changes in own.items() if changes}
    assert keys == values


@pytest.mark.one_in(12)
@pytest.mark.parametrize(("id", "key"), with_alternatives())
def test_what_another_convention_changes_gives_the_stored_alternative(id: str, key: str) -> None:
    how = dict(part.split("=") for part in key.split(","))
    stored = GOLDEN.cases[id].alternatives[key]
    found, _ = truth.measure(CASES[id], how)
    for part in ("outputs", "gradients"):
        assert found.get(part, {}).keys() == getattr(stored, part).keys()
        for name, known in getattr(stored, part).items():
            np.testing.assert_array_equal(found[part][name]["value"], known.value)


def test_a_convention_is_met_where_it_decides_and_nowhere_else() -> None:
    x = np.array([[0.5, -1.0]])
    relu = replace(CASES["FFN/relu-grid"], inputs={"x": x})
    assert "conventions" not in truth.record(relu)
    x[0, 1] = 0
    assert truth.record(replace(relu, inputs={"x": x}))["conventions"] == {"relu_at_zero": "0"}


def test_a_pullback_that_is_not_the_gradient_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Change("activation.silu", {"return dy * (s + x * s * (1 - s))": "return dy * s"})
    silu = next(case for case in CASES.values() if case.operation == "silu")
    monkeypatch.setattr(truth, "_looks", lambda case: [wrong])
    with pytest.raises(ArithmeticError, match="the pullback by hand is not the gradient for x"):
        truth.measure(silu, {})


def test_a_form_with_another_value_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Change("activation.silu", {"s = sigmoid(x)": "s = sigmoid(x) + x / 10**9"})
    silu = next(case for case in CASES.values() if case.operation == "silu")
    monkeypatch.setitem(forms.FORMS, "silu", ((wrong,),))
    with pytest.raises(ArithmeticError, match="reading 1, with 450 digits, gives another float64 value"):
        truth.measure(silu, {})


def test_a_decision_near_a_tie_is_not_published() -> None:
    case = next(case for case in CASES.values() if case.operation == "sample" and case.keywords["top_p"] is None)
    _, margin = truth.measure(case, {})
    assert margin is not None
    assert margin >= truth.MARGIN
    logits = case.inputs["logits"]
    shares = np.exp(logits[0] / case.keywords["temperature"])
    near = np.array(case.keywords["uniforms"], float)
    near[0] = (shares / shares.sum())[0] + 1e-9  # the first running sum
    with pytest.raises(ArithmeticError, match="from a tie; draw other uniforms"):
        truth.measure(replace(case, keywords={**case.keywords, "uniforms": near, "top_k": None}), {})
