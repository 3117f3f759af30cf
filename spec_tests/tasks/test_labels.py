"""Laws of the labels that several classifiers give together, and of those that a language model gives. (ENS, CHAIN)"""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.models import gpt
from refllm.objectives.causal import sentence_log_probability
from refllm.ops.softmax import log_softmax
from refllm.tasks.labels import PROMPT, log_sum_exp, mean_of_probabilities, most_probable, sentence_labels
from refllm.tokenizers import CharacterTokenizer

TOKENIZER = CharacterTokenizer.train("abcdefghijklmnopqrstuvwxyz TL:{}\n.")
CONFIG = gpt.Config(vocabulary=TOKENIZER.size, context=80, layers=2, heads=2, width=8, hidden=16)
P: Any = gpt.initial(CONFIG, numpy.random.default_rng(1))
P["token"] *= 10


def asked(text: str, labels: list[str], *, prompt: str = PROMPT, **changes: Any) -> tuple[list[float], int]:
    usual: dict[str, Any] = {"examples": [], "model": gpt, "config": CONFIG, "tokenizer": TOKENIZER, "device": "cpu"}
    return sentence_labels(P, text, labels=labels, prompt=prompt, **{**usual, **changes})


def of_sentence(text: str) -> float:
    """log P of all characters after the first, by the objective's own function."""
    ids = TOKENIZER.encode(text)[None]
    logits, _ = gpt.forward(P, ids=ids[:, :-1], config=CONFIG, dropout_mask=None, cache=None)
    return float(sentence_log_probability(logits, ids=ids[:, 1:], ignore=None)[0])


@pytest.mark.parametrize("examples", [[], [("a b", "good"), ("c", "bad")]])
def test_a_label_is_as_probable_as_the_sentence_with_it_over_the_one_without(examples: list[tuple[str, str]]) -> None:
    """P(label | prompt) = P(prompt label) / P(prompt), for labels of different lengths."""
    labels = ["good", "bad", "very good"]
    shown = "".join(f"Text: {text}\nLabel: {label}\n" for text, label in examples)
    prompt = f"{shown}Text: e f\nLabel:"
    found, lost = asked("e f", labels, examples=examples)
    assert lost == 0
    for label, log_p in zip(labels, found, strict=True):
        assert log_p == pytest.approx(of_sentence(f"{prompt} {label}\n") - of_sentence(prompt), rel=1e-9)


def test_a_label_that_begins_another_is_told_from_it_by_what_follows() -> None:
    """Without the end of the line, the probability of "ab" would hold that of every label that begins with it."""
    (short, _), _ = asked("x", ["a", "ab"])
    (_, longer), _ = asked("x", ["b", "ab"])
    prompt = "Text: x\nLabel:"
    assert short < of_sentence(f"{prompt} a") - of_sentence(prompt)
    assert math.exp(short) + math.exp(longer) < math.exp(of_sentence(f"{prompt} a") - of_sentence(prompt))


def test_the_order_of_labels_changes_nothing_else() -> None:
    labels = ["good", "bad", "very good"]
    there, _ = asked("e f", labels)
    back, _ = asked("e f", labels[::-1])
    assert there == pytest.approx(back[::-1], rel=1e-12)


def test_a_prompt_that_is_too_long_loses_its_beginning() -> None:
    text = "abc " * 30
    found, lost = asked(text, ["yes", "no"])
    room = CONFIG.context + 1 - len(" yes\n")
    prompt = f"Text: {text}\nLabel:"
    assert lost == len(prompt) - room
    kept = prompt[-room:]
    assert found[0] == pytest.approx(of_sentence(f"{kept} yes\n") - of_sentence(kept), rel=1e-9)


def test_braces_in_a_text_are_text() -> None:
    found, _ = asked("{label} {text}", ["a", "b"])
    prompt = "Text: {label} {text}\nLabel:"
    assert found[0] == pytest.approx(of_sentence(f"{prompt} a\n") - of_sentence(prompt), rel=1e-9)


@pytest.mark.parametrize("prompt", ["{text}", "{label}", "{label} {text}", "plain", "{text} {label} {text}"])
def test_a_prompt_without_its_places_is_refused(prompt: str) -> None:
    with pytest.raises(UserError, match=r"a prompt needs \{text\} and then \{label\}, such as"):
        asked("x", ["a", "b"], prompt=prompt)


def test_a_label_beyond_the_context_is_refused() -> None:
    with pytest.raises(UserError, match="a label has 102 tokens, more than the context of 80; give shorter labels"):
        asked("x", ["a", "b" * 100])


ROWS = st.integers(1, 4).flatmap(lambda K: st.lists(st.lists(st.floats(-20, 20), min_size=K, max_size=K), min_size=1))


@given(ROWS)
def test_several_classifiers_answer_with_the_mean_of_their_probabilities(logits: list[list[float]]) -> None:
    """One text, a row of logits from each."""
    members = log_softmax(numpy.array(logits))[0]
    (mean,) = mean_of_probabilities([[row] for row in members.tolist()])
    assert numpy.exp(mean) == pytest.approx(numpy.exp(members).mean(axis=0), rel=1e-10)
    assert math.fsum(map(math.exp, mean)) == pytest.approx(1)


def test_classifiers_of_one_mind_answer_as_each_alone_and_far_logarithms_stay_finite() -> None:
    rows = [[-0.1, -2000.0], [-3.0, -0.05]]
    assert mean_of_probabilities([rows, rows]) == [pytest.approx(row) for row in rows]
    assert log_sum_exp([-2000.0, -2000.0]) == pytest.approx(-2000 + math.log(2))


def test_the_most_probable_is_the_first_of_equal_ones() -> None:
    assert most_probable([-2.0, -1.0, -1.0]) == 1
