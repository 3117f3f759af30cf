"""What the documents get wrong and no golden case shows: what is printed goes wrong, and what holds does not."""

from __future__ import annotations

import re
from typing import Any

import mpmath
import numpy
import pytest

from refllm.models import bert, gpt
from refllm.ops.attention import attention
from refllm.ops.cross_entropy import cross_entropy
from refllm.ops.dropout import dropout
from refllm.ops.embedding import embedding
from refllm.ops.recurrent import rnn
from refllm.spec.registers import Paper, errata, sources
from spec_tests.gradients import random_tree
from spec_tests.language_models import logits, parameters, tiny_gpt, tokens

BERT = bert.Config(
    vocabulary=7, context=8, layers=2, heads=2, width=8, hidden=12, eps=1e-5, outputs=("classes",), labels=3
)
RANDOM = numpy.random.default_rng(0)


def draw(*shape: int) -> Any:
    return RANDOM.standard_normal(shape)


def test_the_numbers_of_the_register_are_those_of_exact_arithmetic() -> None:
    """Errata E1, E2, E4 and E5: the last digit that is given is off by one at most."""
    with mpmath.workdps(40):
        weights = [mpmath.exp(z) for z in (4, 5, 6)]
        P = [w / sum(weights) for w in weights]
        nll = -mpmath.log(mpmath.mpf("0.0384"))
        exact = {
            "E1": [32 / mpmath.sqrt(3), *P, sum(p * v for p, v in zip(P, (7, 8, 9), strict=True))],
            "E2": [-mpmath.log(mpmath.mpf("0.8"))],
            "E4": [nll, mpmath.exp(nll / 4)],
        }
        for number, values in exact.items():
            given = re.findall(r"\d+\.\d{10,}", errata()[number].holds)
            for word, value in zip(given, values, strict=True):
                assert abs(mpmath.mpf(word) - value) < mpmath.mpf(10) ** -len(word.partition(".")[2]), word
        printed = mpmath.sin(mpmath.mpf("0.5")) + mpmath.cos(mpmath.mpf("0.5"))
        assert str(float(printed)) in errata()["E5"].why


def test_hidden_states_without_a_head_are_no_distribution_of_the_next_token() -> None:
    """Erratum E10: C numbers a place, which most tokens are not among; the head makes V of them."""
    config = tiny_gpt(vocabulary=9)  # wider than the model, as in all that are in use
    p, ids = parameters(config), tokens(2, 4)
    h, _ = gpt.hidden_states(p, ids=ids, config=config, dropout_mask=None, cache=None)
    assert h.shape[-1] == config.width < config.vocabulary
    beyond = numpy.full_like(ids, config.vocabulary - 1)
    with pytest.raises(IndexError, match="targets must be in"):
        cross_entropy(h, targets=beyond, ignore=None, reduction="mean")
    y = logits(p, ids, config)
    loss, _ = cross_entropy(y, targets=beyond, ignore=None, reduction="mean")
    assert y.shape[-1] == config.vocabulary
    assert numpy.isfinite(loss)


def test_padding_changes_the_loss_unless_its_places_are_ignored() -> None:
    """Erratum E10."""
    z, targets = draw(1, 3, 5), numpy.array([[1, 4, 2]])
    alone, _ = cross_entropy(z, targets=targets, ignore=None, reduction="mean")
    padded, pad = (
        numpy.concatenate([z, draw(1, 4, 5)], axis=1),
        numpy.concatenate([targets, numpy.zeros((1, 4), int)], axis=1),
    )
    counted, _ = cross_entropy(padded, targets=pad, ignore=None, reduction="mean")
    pad[:, 3:] = -1
    ignored, _ = cross_entropy(padded, targets=pad, ignore=-1, reduction="mean")
    assert ignored == pytest.approx(alone, rel=1e-14)
    assert abs(counted - alone) > 0.01


def label_logits(ids: Any, attention_mask: Any) -> Any:
    p = random_tree(bert.shapes(BERT), seed=0)
    h, _ = bert.encode(
        p, ids=ids, segments=numpy.zeros_like(ids), attention_mask=attention_mask, config=BERT, dropout_mask=None
    )
    return bert.class_logits(h, p, dropout_mask=None, rate=0.0)[0]


def test_words_are_no_rows_of_an_embedding() -> None:
    """Erratum E11: a text becomes numbers by a tokenizer, not by a data set of tensors."""
    with pytest.raises((TypeError, ValueError, IndexError)):
        embedding(draw(5, 3), ids=numpy.array([["a", "text"]]))


def test_padding_without_a_mask_changes_the_logits_of_a_text() -> None:
    """Erratum E11."""
    text = numpy.array([[2, 5, 3]])
    padded = numpy.array([[2, 5, 3, 0, 0, 0]])
    attention_mask = (numpy.arange(6) < 3)[None, None, None, :]
    alone = label_logits(text, None)
    numpy.testing.assert_allclose(label_logits(padded, attention_mask), alone, rtol=1e-11)
    assert abs(label_logits(padded, None) - alone).max() > 0.01


def test_dropout_in_evaluation_makes_logits_depend_on_the_draw() -> None:
    """Erratum E11: measured with dropout, a right answer is a matter of luck; without it, twice the same."""
    h, W = draw(1, 64), draw(64, 3)
    drawn = [dropout(h, dropout_mask=RANDOM.random(h.shape) < 0.9, rate=0.1)[0] @ W for _ in range(2)]
    assert abs(drawn[0] - drawn[1]).max() > 0.01
    text = numpy.array([[2, 5, 3]])
    assert numpy.array_equal(label_logits(text, None), label_logits(text, None))


def paper(title: str) -> Paper:
    (found,) = [paper for paper in sources().papers if paper.title == title]
    return found


def test_identifiers_belong_to_the_works_they_are_cited_for() -> None:
    """Erratum E14: Devlin et al. 2019 (N19-1423, arXiv:1810.04805), Xiong et al. 2020 (arXiv:2002.04745)."""
    wanted = paper("BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding")
    (printed,) = re.findall(r"N\d\d-\d{4}", errata()["E14"].printed)
    assert printed not in {paper.acl for paper in sources().papers}
    assert wanted.acl in errata()["E14"].holds
    assert wanted.arxiv in errata()["E14"].holds
    norm = paper("On Layer Normalization in the Transformer Architecture")
    assert (norm.arxiv, norm.authors, norm.year) == ("2002.04745", "Xiong et al.", 2020)
    assert norm.arxiv in errata()["E14"].printed
    assert paper("The Annotated Transformer").arxiv == ""


def test_instruction_tuning_came_after_the_first_three_gpts() -> None:
    """Erratum E15."""
    gpts = [
        paper("Improving Language Understanding by Generative Pre-Training"),
        paper("Language Models are Unsupervised Multitask Learners"),
        paper("Language Models are Few-Shot Learners"),
    ]
    tuned = [
        paper("Finetuned Language Models Are Zero-Shot Learners"),
        paper("Training language models to follow instructions with human feedback"),
    ]
    assert [work.year for work in gpts] == [2018, 2019, 2020]
    assert min(work.year for work in tuned) > 2020


def test_the_printed_recurrence_does_not_see_the_next_word() -> None:
    """Erratum E17: forward states know nothing of what follows, backward ones do (see BIRNN/rnn)."""
    x, zeros, token_mask = draw(1, 4, 3), numpy.zeros((1, 2)), numpy.ones((1, 4), bool)
    Wx, Wh, b = draw(3, 2), draw(2, 2), draw(2)
    other = x.copy()
    other[:, -1] += 1
    forward = [rnn(text, zeros, Wx, Wh, b, token_mask=token_mask)[0] for text in (x, other)]
    backward = [rnn(text[:, ::-1], zeros, Wx, Wh, b, token_mask=token_mask)[0][:, ::-1] for text in (x, other)]
    assert numpy.array_equal(forward[0][:, :3], forward[1][:, :3])
    assert (backward[0] != backward[1]).any(axis=-1).all()


def test_attention_over_the_wrong_axis_mixes_the_texts_of_a_batch() -> None:
    """Erratum E18."""
    x = draw(3, 4, 5)  # (B, T, C)
    other = x.copy()
    other[1] += draw(4, 5)

    def attend(x: Any) -> Any:
        return attention(x, x, x, causal=False, attention_mask=None)[0]

    assert numpy.array_equal(attend(x)[0], attend(other)[0])
    exchanged = [attend(text.swapaxes(0, 1)).swapaxes(0, 1)[0] for text in (x, other)]
    assert abs(exchanged[0] - exchanged[1]).max() > 0.01


def test_the_first_word_of_a_generating_model_attends_itself_alone() -> None:
    """Erratum E19: the own place is among the keys, and no later one is."""
    q, k, v = draw(4, 3), draw(4, 3), draw(4, 2)
    y, _ = attention(q, k, v, causal=True, attention_mask=None)
    numpy.testing.assert_allclose(y[0], v[0], rtol=1e-15)
    whole, _ = attention(q, k, v, causal=False, attention_mask=None)
    others, _ = attention(q, k, v, causal=False, attention_mask=~numpy.eye(4, dtype=bool))
    assert abs(whole - others).max() > 0.01
    assert abs(whole[:3] - y[:3]).max() > 0.01


def test_a_model_that_copies_its_input_is_perfect_on_targets_that_are_not_shifted() -> None:
    """Erratum E21: on what its input is it scores 0, on random next tokens worse than a guess at random."""
    ids = RANDOM.integers(0, 5, (8, 64))
    copied = 50.0 * numpy.eye(5)[ids]  # the logits
    same, _ = cross_entropy(copied, targets=ids, ignore=None, reduction="mean")
    following, _ = cross_entropy(copied[:, :-1], targets=ids[:, 1:], ignore=None, reduction="mean")
    assert same < 1e-15
    assert following > numpy.log(5)


def test_works_are_listed_under_their_authors() -> None:
    """Erratum E22."""
    authors = {
        "Recurrent Neural Network Regularization": "Zaremba et al.",
        "The Annotated Transformer": "Rush",
        "Dive into Deep Learning": "Zhang et al.",
        "Language Models are Few-Shot Learners": "Brown et al.",
    }
    assert {title: paper(title).authors for title in authors} == authors
    assert {title for title in authors if title in errata()["E22"].printed.replace("\n", " ")} == set(authors)


def test_the_state_at_the_masked_place_is_the_one_that_counts() -> None:
    """Erratum E23: an encoder gives a state, and so a distribution, for every place, and they differ."""
    ids = numpy.array([[2, 5, 3]])
    h, _ = bert.encode(
        random_tree(bert.shapes(BERT), seed=0),
        ids=ids,
        segments=numpy.zeros_like(ids),
        attention_mask=None,
        config=BERT,
        dropout_mask=None,
    )
    assert h.shape == (1, 3, BERT.width)
    assert len(numpy.unique(h[0], axis=0)) == 3


def test_only_a_model_of_both_sides_uses_the_words_behind_a_mask() -> None:
    """Erratum E25: another word behind place 1 changes BERT's state there and not GPT's."""
    text, other = numpy.array([[2, 5, 3, 1]]), numpy.array([[2, 5, 3, 4]])
    config = tiny_gpt()
    p = parameters(config)
    assert numpy.array_equal(logits(p, text, config)[:, 1], logits(p, other, config)[:, 1])
    q, segments = random_tree(bert.shapes(BERT), seed=0), numpy.zeros_like(text)
    h = [
        bert.encode(q, ids=ids, segments=segments, attention_mask=None, config=BERT, dropout_mask=None)[0][:, 1]
        for ids in (text, other)
    ]
    assert abs(h[0] - h[1]).max() > 0.001


def test_ngram_and_recurrent_models_are_older_than_2000() -> None:
    """Erratum E26."""
    older = [
        "A Mathematical Theory of Communication",
        "Perplexity, a measure of the difficulty of speech recognition tasks",
        "Improved backing-off for m-gram language modeling",
        "Finding Structure in Time",
    ]
    assert max(paper(title).year for title in older) < 2000
    assert paper("KenLM: Faster and Smaller Language Model Queries").year == 2011
