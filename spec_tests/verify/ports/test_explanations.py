"""A mistake that is named explains the port's numbers; where none does, none is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy
import pytest

from refllm.verify.ports import candidates, digits, report, search
from refllm.verify.ports.found import NOTHING_SOUGHT
from refllm.verify.ports.judged import Judged, judged
from refllm.verify.ports.mistakes import scales
from refllm.verify.ports.search import searched
from refllm.verify.ports.truth import truth
from spec_tests.verify.ports.test_search import Wrong, named

SECONDS = 60.0
WRONG = [
    Wrong("llama3", "keys one further", "rotary", "keys are turned by positions that are one too high"),
    Wrong("llama of wide heads", "heads of width over heads", "map of the queries", "12 heads of queries"),
    Wrong("qwen3", "gain of the qk norms 1 + g", "norm of the queries", "attention.key_norm.g are 1 + the numbers"),
    Wrong("gemma2", "embedding scale in bfloat16", "embedding", "4.90625 for 4.89898"),
    Wrong("t5", "decoder with the table of the encoder", "attention scores", "encoder.relative is used in the place"),
    Wrong("llama3", "llama 3 shares exchanged", "rotary", "the shares of its frequencies are exchanged"),
    Wrong("bert", "mask subtracts 10", "attention mask and softmax", "10 is subtracted from the scores"),
    Wrong("t5", "hidden values times 0.9", "second map of the feed-forward layer", "multiplied by 0.9"),
    Wrong("t5", "half the max distance", "attention scores", "relative_attention_max_distance is 10"),
    Wrong("llama3", "rope frequencies in float16", "rotary", "the frequencies of the rotation are rounded to float16"),
    Wrong("mistral", "rope tables in bfloat16", "rotary", "cosines and sines of the rotation are rounded to bfloat16"),
    Wrong("llama3", "llama 3 with a scaled middle", "rotary", "divided by the factor, where a line is right"),
    Wrong("qwen2", "query bias after the rotation", "rotary", "bias of the map of queries is added after the rotation"),
    Wrong("bert", "mask added as 0 and 1", "attention mask and softmax", "added to the scores as 1 and 0"),
    Wrong("qwen3", "mask added as 0 and 1", "attention mask and softmax", "added to the scores as 1 and 0"),
    Wrong("gpt2", "causal mask inverted", "attention mask and softmax", "takes the mean of all values"),
    Wrong("t5", "padding mask inverted", "attention mask and softmax", "mask of padding is inverted"),
    Wrong("t5", "buckets rounded up", "attention scores", "bucket of a far distance is rounded up"),
    Wrong("t5 gated", "gate and up exchanged in both halves", "map of the gate", "; and so is decoder.layers"),
    Wrong("qwen3", "qk norm over all heads", "norm of the queries", "queries and keys are taken over all heads"),
    Wrong("mistral", "half of each head turned", "rotary", "half of each head is turned, and the rest is not"),
    Wrong("mistral", "window in the even layers", "attention mask and softmax", "every second layer, from layer 0 on"),
    Wrong("gemma2", "caps exchanged", "attention scores", "caps of the scores and of the logits are exchanged"),
    Wrong("gemma2", "embedding times 4.9", "embedding", "rounded to 1 decimal, 4.9 for 4.89898"),
]
# what is seen in the logits, or by the values on the way alone
SEEN_ONE_WAY = [
    Wrong("llama3", "queries permuted as of the keys", "map of the queries", "those of 2 heads"),
    Wrong("mistral", "keys not permuted", "map of the keys", "columns of layers.*.attention.Wk alone"),
    Wrong("bert classes", "classes the other way round", "output layer", "in another order: the other way round"),
    Wrong("gemma2", "embedding times 5.5", "embedding", "multiplied by 5.5, where 4.89898 is right", taps=True),
    Wrong(
        "qwen2", "key bias after the rotation", "map of the keys", "bias of the map of keys is added after the rotation"
    ),
    Wrong("gpt2", "scores by the number of the layer", "map of the queries", "divided by the number of the layer"),
    Wrong("gpt2", "second map not read", "second map of the feed-forward layer", "W2 is not read"),
    Wrong("gpt2 untied", "other head", "output layer", "other weights than those of head"),
    Wrong("gpt2", "other head", "output layer", "other weights than those of token", taps=True),
]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: f"{w.model}, {w.mistake}")
def test_what_is_one_thought_is_named_with_its_words(published: Any, wrong: Wrong) -> None:
    named(published, wrong)
    if wrong.mistake != "heads of width over heads":  # whose queries have another shape
        named(published, wrong._replace(taps=True))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", SEEN_ONE_WAY, ids=lambda w: f"{w.model}, {w.mistake}")
def test_what_values_on_the_way_hide_or_show_is_named_with_its_words(published: Any, wrong: Wrong) -> None:
    named(published, wrong)


def test_a_mistake_in_some_layers_is_said_to_be_in_these_alone(published: Any) -> None:
    """The first layer of each half has its bias by distance, and is not listed."""
    model = published("t5")
    answers = model.answers("distances in the first layers alone", taps=True)
    found = searched(model.program, model.p, {}, answers, SECONDS)
    assert found.complete
    [one] = found.found
    assert [model.program.steps[n].place for n in one.places] == ["encoder.layers.1", "decoder.layers.1"]


def only(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """The search has the candidates with these words alone."""
    every = candidates.named
    monkeypatch.setattr(search, "named", lambda *given: [one for one in every(*given) if words in one.said])
    monkeypatch.setattr(search, "of_the_text", lambda *_: [])


def test_what_explains_some_inputs_and_leaves_others_is_not_named(
    published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two tokens, keys that are one further are queries that are not turned."""
    model = published("llama3")
    answers = model.answers("keys one further", taps=False)
    short = [answer for answer in answers if answer.wrong][:1]
    only(monkeypatch, "queries are not turned")
    assert searched(model.program, model.p, {}, short, SECONDS).complete
    assert searched(model.program, model.p, {}, answers, SECONDS).found == []


def test_what_leaves_a_rest_in_later_layers_alone_is_named(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = published("gpt2")
    answers = [with_noise(answer, "logits") for answer in model.answers("positions from 1", taps=True)]
    only(monkeypatch, "positions begin at 1")
    found = searched(model.program, model.p, {}, answers, SECONDS)
    assert not found.complete
    assert ["positions begin at 1" in one.candidate.said for one in found.found] == [True]
    blurred = [with_noise(answer, "layers.0") for answer in answers]
    assert len(searched(model.program, model.p, {}, blurred, SECONDS).found) == 1
    assert searched(model.program, model.p, {}, [with_noise(a, "embedding") for a in answers], SECONDS).found == []


def with_noise(answer: Judged, name: str) -> Judged:
    """The answer with one of its values disturbed."""
    one = answer.compared[name]
    assert one.given is not None
    x = one.given + numpy.random.default_rng(0).normal(size=one.given.shape).astype("float32")
    other = replace(one, given=x, far=one.expected.far(x))
    return replace(answer, compared={**answer.compared, name: other})


def answers_in(model: Any, wrong: str, given_as: str, dtype: str) -> list[Judged]:
    """A port's logits, given in one precision and judged in another."""
    found = []
    for one, answer in zip(model.truths, model.answers(wrong, taps=False), strict=True):
        exact = one if dtype == "float32" else truth(model.program, model.p, one.input, dtype)
        logits = answer.compared["logits"].given.astype(given_as)
        found.append(judged(model.program, exact, {"logits": logits}, {}))
    return found


@pytest.mark.parametrize(
    ("wrong", "given_as", "dtype", "coarser"),
    [
        ("", "float32", "float64", "float32"), ("", "float16", "float32", "float16"), ("", "float32", "float32", ""),
        ("gelu quick", "float32", "float64", ""), ("gelu quick", "float16", "float32", ""),
    ],
)  # fmt: skip
def test_a_port_with_fewer_digits_is_told_so_and_no_mistake(
    published: Any, wrong: str, given_as: str, dtype: str, coarser: str
) -> None:
    model = published("gpt2")
    model = replace(model, truths=model.truths[:2])

    def judged_in(precision: str) -> list[Judged]:
        return answers_in(model, wrong, given_as, precision)

    assert digits.lost(judged_in(dtype), dtype, judged_in) == coarser
    if coarser:
        assert coarser in digits.in_words(dtype, coarser)


@pytest.mark.parametrize("value", [3, None, {}, "q", 1j, numpy.zeros(3), numpy.float32(2), numpy.zeros((1, 2)),
                                   numpy.array(["q"]), numpy.full((1, 1, 24), numpy.nan)])  # fmt: skip
def test_whatever_a_port_gives_is_judged(published: Any, value: Any) -> None:
    """What is no array of the right shape is said to be none, and leaves the others to be judged."""
    model = published("gpt2")
    given = numpy.asarray(value) if isinstance(value, int) else value
    for name in ("layers.0.q", "layers.0", "logits"):
        right = {"embedding": model.truths[0].values["embedding"].value}
        answer = judged(model.program, model.truths[0], {"logits": given}, {**right, name: given})
        assert name in answer.unfit
        assert not answer.compared["embedding"].wrong
        assert not set(answer.fit.compared) & set(answer.unfit)
        sought = searched(model.program, model.p, {}, [answer], SECONDS)
        assert not sought.found
        assert (sought == NOTHING_SOUGHT) == (model.program.answer in answer.unfit)


def test_what_is_left_of_an_unfit_answer_is_said(published: Any) -> None:
    model = published("gpt2")
    answers = [judged(model.program, one, {"logits": numpy.zeros((1, 53))}, {}) for one in model.truths]
    told = report.as_text(
        report.PortReport("port.py", "", "gpt2", model.program, "float32", answers, {}, {}, NOTHING_SOUGHT)
    )
    assert "one place alone, and all are asked for" in told
    assert "no mistake of the model was sought" in " ".join(told.split())
    assert "by the inputs" not in told


def test_numbers_that_a_model_multiplies_by_are_tried_where_it_does(published: Any) -> None:
    said = {name: " ".join(one.said for one in scales.mistakes(published(name).program)) for name in ("gemma2", "t5")}
    assert "embedding is multiplied by a number that is rounded to bfloat16, 4.90625 for 4.89898" in said["gemma2"]
    assert "before the output layer" in said["t5"]
    assert "embedding" not in said["t5"]
