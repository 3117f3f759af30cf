"""Laws of the language-model objective. (CHAIN, NLL, PPL)"""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.metrics import perplexity
from refllm.models import gpt, switch
from refllm.objectives.causal import causal_loss, sentence_log_probability
from refllm.ops.cross_entropy import cross_entropy
from refllm.ops.linear import matmul
from refllm.parameters import named_leaves
from spec_tests.gradients import random_tree
from spec_tests.language_models import tiny_switch

CONFIG = gpt.Config(vocabulary=5, context=6, layers=2, heads=2, width=4, hidden=6)
P = random_tree(gpt.shapes(CONFIG), seed=0)


def tokens(B: int, T: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, 5, (B, T))


def loss(ids: Any, targets: Any, ignore: int | None = None) -> Any:
    return causal_loss(P, model=gpt, ids=ids, targets=targets, ignore=ignore, config=CONFIG, dropout_mask=None)


def test_the_documents_example_has_the_numbers_of_erratum_4() -> None:
    """P(cat, sat, on, the | The) = 0.2 · 0.4 · 0.6 · 0.8; each wrong word shares what is left."""
    probabilities = [0.2, 0.4, 0.6, 0.8]
    logits = numpy.log([[[p, (1 - p) / 2, (1 - p) / 2] for p in probabilities]])
    log_p = float(sentence_log_probability(logits, ids=numpy.zeros((1, 4), int), ignore=None)[0])
    assert math.exp(log_p) == pytest.approx(0.0384, rel=1e-15)
    assert -log_p == pytest.approx(3.259697819388456, rel=1e-15)
    assert perplexity(-log_p, 4) == pytest.approx(2.259005009024612, rel=1e-15)


@given(seed=st.integers(0, 999), T=st.integers(1, 8), ignore=st.none() | st.integers(0, 3))
def test_a_sentences_probability_is_the_product_of_its_tokens_probabilities(
    seed: int, T: int, ignore: int | None
) -> None:
    random = numpy.random.default_rng(seed)
    logits, ids = 3 * random.standard_normal((2, T, 4)), random.integers(0, 4, (2, T))
    log_p = sentence_log_probability(logits, ids=ids, ignore=ignore)
    for row in range(2):
        product = 1.0
        for t, token in enumerate(ids[row]):
            if token != ignore:
                weights = [math.exp(z) for z in logits[row, t]]
                product *= weights[token] / sum(weights)
        assert math.exp(log_p[row]) == pytest.approx(product, rel=1e-12)


def test_a_probability_too_small_for_a_product_still_has_a_logarithm() -> None:
    log_p = sentence_log_probability(numpy.zeros((1, 1000, 50)), ids=numpy.zeros((1, 1000), int), ignore=None)
    assert 0.02**1000 == 0.0
    assert log_p[0] == pytest.approx(-1000 * math.log(50))


def test_the_probabilities_of_all_continuations_sum_to_one() -> None:
    """Chain rule: Σ over all x_2 x_3 of P(x_2 x_3 | x_1) = 1."""
    continuations = numpy.array([(a, b) for a in range(5) for b in range(5)])
    ids = numpy.concatenate([numpy.full((25, 1), 3), continuations], axis=1)
    logits, _ = gpt.forward(P, ids=ids[:, :-1], config=CONFIG, dropout_mask=None, cache=None)
    log_p = sentence_log_probability(logits, ids=ids[:, 1:], ignore=None)
    assert math.fsum(numpy.exp(log_p)) == pytest.approx(1, rel=1e-13)


def test_the_loss_is_minus_the_sentences_log_probabilities() -> None:
    ids = tokens(3, 6)
    y, _ = loss(ids[:, :-1], ids[:, 1:])
    logits, _ = gpt.forward(P, ids=ids[:, :-1], config=CONFIG, dropout_mask=None, cache=None)
    assert y == pytest.approx(-sentence_log_probability(logits, ids=ids[:, 1:], ignore=None).sum(), rel=1e-13)


@pytest.mark.parametrize("ignored", [0, 1, 5, 11, 12])
def test_the_balance_of_experts_is_added_once_to_the_mean_however_many_targets_count(ignored: int) -> None:
    """Fedus et al. 2021 sec. 2.2: mean NLL + alpha balance; with no target at all the balance is left."""
    config = tiny_switch(balance=0.5)
    p, ids = random_tree(switch.shapes(config), seed=1), tokens(3, 4)
    targets = tokens(3, 4, seed=2)
    targets.reshape(-1)[numpy.random.default_rng(3).permutation(12)[:ignored]] = -1
    y, back = causal_loss(p, model=switch, ids=ids, targets=targets, ignore=-1, config=config, dropout_mask=None)
    (h, balance), back_states = switch.balanced_states(p, ids=ids, config=config, dropout_mask=None)
    logits, back_logits = matmul(h, p["token"].T)
    mean, back_mean = cross_entropy(logits, targets=targets, ignore=-1, reduction="mean")
    counted, one = max(1, 12 - ignored), numpy.ones(())
    assert y / counted == pytest.approx(float(mean + 0.5 * balance), rel=1e-13)
    dh, dhead = back_logits(back_mean(one))
    wanted = switch.add_head_gradient(back_states(dh, 0.5 * one), dhead, config)
    for (path, a), (_, b) in zip(named_leaves(back(one / counted)), named_leaves(wanted), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13, err_msg=path)


def test_an_ignored_place_adds_nothing_to_loss_and_gradient() -> None:
    """The last target ignored is the text without it, since no earlier place can see it."""
    ids, targets = tokens(2, 5), tokens(2, 5, seed=1)
    masked = targets.copy()
    masked[:, -1] = -1
    (y, back), (short, back_short) = loss(ids, masked, ignore=-1), loss(ids[:, :-1], targets[:, :-1])
    assert y == pytest.approx(short, rel=1e-13)
    for (_, a), (_, b) in zip(
        named_leaves(back(numpy.ones(()))), named_leaves(back_short(numpy.ones(()))), strict=True
    ):
        numpy.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
