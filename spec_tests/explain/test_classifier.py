"""Laws of the answer of a classifier as a function of its word vectors. (EXPLAIN, CLS)"""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.explain.attribution import integrated_gradients
from refllm.explain.classifier import ANSWERS, BASELINES, baseline_vectors, label_answer, word_vectors
from refllm.models import bert
from refllm.tokenizers.vocabulary import SpecialIds
from spec_tests.gradients import random_tree

SPECIAL = SpecialIds(pad=0, unknown=1, cls=2, sep=3, mask=4)
CONFIG = bert.Config(
    vocabulary=12, context=8, layers=2, heads=2, width=8, hidden=8, outputs=("classes",), labels=3
)  # fmt: skip
P = random_tree(bert.shapes(CONFIG), seed=4)
IDS, SEGMENTS = numpy.array([2, 7, 9, 7, 3]), numpy.zeros(5, numpy.int64)
X = word_vectors(P, ids=IDS)


def answer(kind: str, label: int = 1) -> Any:
    return label_answer(P, segments=SEGMENTS, label=label, answer=kind, config=CONFIG)


def logits() -> Any:
    h, _ = bert.encode(P, ids=IDS[None], segments=SEGMENTS[None], attention_mask=None, config=CONFIG, dropout_mask=None)
    return bert.class_logits(h, P, dropout_mask=None, rate=0.0)[0][0]


@pytest.mark.parametrize("label", range(3))
def test_the_answer_at_the_words_of_a_text_is_the_model_s(label: int) -> None:
    z = logits()
    log_p = z - numpy.log(numpy.exp(z).sum())
    assert answer("logit", label)(X[None])[0] == pytest.approx(z[label], rel=1e-12)
    assert answer("log-probability", label)(X[None])[0] == pytest.approx(log_p[label], rel=1e-12)


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_gradient_is_the_difference_quotient_of_every_token_apart(kind: str) -> None:
    """Also of the same word at two places, which the gradient of the table would mix."""
    f, random = answer(kind), numpy.random.default_rng(6)
    x = numpy.stack([X, X + 0.1 * random.standard_normal(X.shape)])
    dy = random.standard_normal(2)
    gradient = f(x)[1](dy)
    for token in range(len(IDS)):
        direction = numpy.zeros_like(x)
        direction[:, token] = random.standard_normal((2, X.shape[1]))
        quotient = ((f(x + 1e-5 * direction)[0] - f(x - 1e-5 * direction)[0]) / 2e-5 * dy).sum()
        assert (gradient * direction).sum() == pytest.approx(quotient, rel=1e-6, abs=1e-8)


def test_texts_do_not_mix() -> None:
    x = numpy.stack([X, 2 * X, X - 1])
    together, back = answer("logit")(x)
    gradients = back(numpy.array([1.0, 2.0, 3.0]))
    for i in range(3):
        alone, back_alone = answer("logit")(x[i : i + 1])
        assert together[i] == pytest.approx(alone[0], rel=1e-12)
        numpy.testing.assert_allclose(gradients[i], back_alone(numpy.array([1.0 + i]))[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("baseline", BASELINES)
def test_integrated_gradients_of_a_classifier_are_complete(kind: str, baseline: str) -> None:
    b = baseline_vectors(P, ids=IDS, kind=baseline, special=SPECIAL)
    found = integrated_gradients(answer(kind), X, b, tolerance=1e-6, steps=8192)
    change = found.value - found.baseline_value
    assert abs(change) > 1e-3
    assert abs(found.missing) <= 1e-6 * abs(change)
    assert found.scores.shape == (5,)
    assert (found.scores[[0, 4]] == 0).all()  # [CLS] and [SEP] are in the baseline too


def test_a_baseline_keeps_the_marks_and_replaces_the_words() -> None:
    zeros, pad, mask = (baseline_vectors(P, ids=IDS, kind=k, special=SPECIAL) for k in ("zeros", "pad", "mask"))
    for b, row in ((zeros, 0 * X[0]), (pad, P["token"][0]), (mask, P["token"][4])):
        numpy.testing.assert_array_equal(b[[0, 4]], X[[0, 4]])
        numpy.testing.assert_array_equal(b[1:4], numpy.stack([row] * 3))


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(UserError, match="one of mask, pad, zeros; got mean"):
        baseline_vectors(P, ids=IDS, kind="mean", special=SPECIAL)
    with pytest.raises(UserError, match="one of log-probability, logit; got p"):
        answer("p")
