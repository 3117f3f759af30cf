"""Where an error begins: a wrong intermediate that does not follow from those before it is told from one that does."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest

from refllm.spec.array import watched
from refllm.verify import corpus, plain
from refllm.verify.case import Case
from refllm.verify.intermediates import computed, located
from refllm.verify.tolerance import ratios

Change = Callable[[str, numpy.ndarray], numpy.ndarray]


def _given(case: Case, change: Change = lambda name, x: x) -> dict[str, numpy.ndarray]:
    """What somebody gives for each intermediate whose values change on the way."""
    found: dict[str, numpy.ndarray] = {}

    def look(name: str, x: numpy.ndarray) -> numpy.ndarray:
        found[name] = change(name, x)
        return found[name]

    with watched(look):
        plain.operations()[case.operation](*case.arguments("float64"), **case.keyword_arguments())
    return {name: found[name] for name in case.taps}


def _wrong(case: Case, given: dict[str, numpy.ndarray], C: float) -> list[str]:
    return [n for n, t in case.taps.items() if n in given and (ratios(given[n], t, "float64", C) > 1).any()]


def test_the_text_computes_every_intermediate_of_every_case(golden: corpus.Corpus) -> None:
    """From nothing, and from the truth in the place of all that is before it."""
    cases = [case for case in golden.cases.values() if case.taps and not case.id.startswith("ATT/e1-")]
    assert {case.operation for case in cases} >= {
        "transformer_layer", "gpt", "gpt_loss", "train_step", "llama_layer", "llama", "llama_loss", "switch",
        "switch_loss", "bert", "classifier_loss", "span_loss", "encoder_decoder", "recurrent_lm", "nnlm", "hybrid",
    }  # fmt: skip
    for case in cases:
        assert _wrong(case, _given(case), golden.C) == []
        before: dict[str, numpy.ndarray] = {}
        for name, truth in case.taps.items():
            value = computed(case, name, before)
            assert value is not None, (case.id, name)
            assert (ratios(value.reshape(truth.value.shape), truth, "float64", golden.C) <= 1).all(), (case.id, name)
            before[name] = truth.value
        assert computed(case, "nothing of that name", {}) is None


@pytest.mark.parametrize(
    "first", ["embedding", "layers.0.norm1", "layers.0.feed_forward", "layers.1.residual2", "norm", "logits"]
)
def test_an_error_made_in_a_step_is_local_to_it(golden: corpus.Corpus, first: str) -> None:
    case = golden.cases["LMHEAD/gpt2"]
    given = _given(case, lambda name, x: 2 * x if name == first else x)
    line = located(case, given, _wrong(case, given, golden.C), "float64", golden.C)
    assert line is not None
    assert line.startswith(f"{first} is the first intermediate that differs")
    assert "the error is local: it does not follow from its inputs" in line
    assert ("later ones differ too" in line) or first in ("norm", "logits")


def test_what_follows_from_a_wrong_input_is_inherited(golden: corpus.Corpus) -> None:
    """Were the wrong one before it not called wrong, the next one would be found right about its inputs."""
    case = golden.cases["LMHEAD/gpt2"]
    given = _given(case, lambda name, x: 2 * x if name == "layers.0.norm1" else x)
    line = located(case, given, ["layers.0.attention", "logits"], "float64", golden.C)
    assert line is not None
    assert "the error is inherited: it follows from its inputs; 1 later one differs too" in line
    assert located(case, given, [], "float64", golden.C) is None


def test_what_a_wrong_one_was_made_of_must_be_given_to_know(golden: corpus.Corpus) -> None:
    """A missing value that it does not depend on, because a later one was given, is not asked for."""
    case = golden.cases["LMHEAD/gpt2"]
    given = _given(case, lambda name, x: 2 * x if name == "layers.0.residual2" else x)
    for name, asked in (("layers.0.feed_forward", True), ("layers.0.norm2", False), ("layers.0.residual1", True)):
        some = {each: x for each, x in given.items() if each != name}
        line = located(case, some, _wrong(case, some, golden.C), "float64", golden.C)
        assert line is not None
        assert (f"local or inherited is not known without {name}" in line) == asked, line
        assert ("the error is local" in line) != asked


def test_intermediates_of_another_shape_are_not_gone_on_with(golden: corpus.Corpus) -> None:
    case = golden.cases["LMHEAD/gpt2"]
    given = _given(case)
    expected = computed(case, "logits", given)
    assert expected is not None
    numpy.testing.assert_array_equal(computed(case, "logits", {**given, "norm": numpy.zeros(3)}), expected)


def test_where_the_text_names_nothing_the_first_is_said_alone(golden: corpus.Corpus) -> None:
    case = golden.cases["ATT/e1-one-query"]
    given = {name: truth.value + 1 for name, truth in case.taps.items()}
    line = located(case, given, list(given), "float64", golden.C)
    assert line is not None
    assert line.startswith(f"{next(iter(given))} is the first intermediate that differs: it is the first there is; ")
