"""Laws of the interpolated Kneser-Ney model. (NGRAM)"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.data.corpus import python_reference, split
from refllm.errors import UserError
from refllm.generation.state import CarriedState
from refllm.models import ngram
from refllm.models.ngram import NGram
from refllm.parameters import named_leaves
from refllm.tokenizers import CharacterTokenizer

VOCABULARY = 5
rows = st.lists(st.integers(0, VOCABULARY - 2), min_size=5, max_size=40)  # the last of the vocabulary is never seen
texts = st.lists(st.integers(0, VOCABULARY - 1), max_size=8)
lengths = st.integers(0, 5)


def kneser_ney(text: list[int], n: int, context: tuple[int, ...], token: int, *, highest: bool) -> Fraction:
    """The formula of the docstring in exact arithmetic, counted anew each time; context has n - 1 tokens."""
    if n == 0:
        return Fraction(1, VOCABULARY)
    grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    longer = {tuple(text[i : i + n + 1]) for i in range(len(text) - n)}
    count = {gram: grams.count(gram) if highest else sum(one[1:] == gram for one in longer) for gram in set(grams)}
    once, twice = (list(count.values()).count(number) for number in (1, 2))
    discount = Fraction(once, once + 2 * twice) if once else Fraction(1, 2)
    followers = [c for gram, c in count.items() if gram[:-1] == context and c > 0]
    lower = kneser_ney(text, n - 1, context[1:], token, highest=False)
    if not followers:
        return lower
    own = max(count.get((*context, token), 0) - discount, Fraction(0))
    return (own + discount * len(followers) * lower) / sum(followers)


@settings(max_examples=200)
@given(rows, lengths, texts)
def test_probabilities_are_those_of_the_formula_in_exact_arithmetic(
    text: list[int], n: int, history: list[int]
) -> None:
    p = NGram.fit(np.array(text), n=n, vocabulary=VOCABULARY).probability(np.array(history, int))
    used = min(n, len(history) + 1)
    context = tuple(history[len(history) - used + 1 :]) if used > 1 else ()
    exact = [kneser_ney(text, used, context, token, highest=used == n) for token in range(VOCABULARY)]
    np.testing.assert_allclose(p, [float(one) for one in exact], rtol=1e-13)


@given(rows, lengths, texts)
def test_probabilities_sum_to_one_after_any_context_and_none_is_zero(
    text: list[int], n: int, history: list[int]
) -> None:
    p = NGram.fit(np.array(text), n=n, vocabulary=VOCABULARY).probability(np.array(history, int))
    assert p.shape == (VOCABULARY,)
    assert (p > 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-13)


@given(rows, lengths, st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30), st.data())
def test_scoring_a_text_at_once_is_scoring_it_token_by_token(
    text: list[int], n: int, scored: list[int], data: st.DataObject
) -> None:
    model = NGram.fit(np.array(text), n=n, vocabulary=VOCABULARY)
    one_by_one = [model.probability(np.array(scored[:i], int))[token] for i, token in enumerate(scored)]
    np.testing.assert_allclose(model.probabilities(np.array(scored)), one_by_one, rtol=1e-13)
    past = data.draw(st.integers(0, len(scored) - 1))
    bits = model.bits_per_token(np.array(scored), past=past)
    assert bits == pytest.approx(-np.mean(np.log2(one_by_one[past:])), rel=1e-12)


@given(rows, st.integers(1, 5), texts)
def test_only_the_last_tokens_of_the_context_matter(text: list[int], n: int, history: list[int]) -> None:
    model = NGram.fit(np.array(text), n=n, vocabulary=VOCABULARY)
    recent = np.array(history[max(len(history) - n + 1, 0) :], int)
    np.testing.assert_array_equal(model.probability(np.array(history, int)), model.probability(recent))


@given(rows, st.lists(lengths, min_size=1, max_size=4))
def test_several_orders_that_are_counted_at_once_are_those_that_are_counted_apart(
    text: list[int], orders: list[int]
) -> None:
    together = NGram.fit_orders(np.array(text), orders=orders, vocabulary=VOCABULARY)
    for n in orders:
        alone = NGram.fit(np.array(text), n=n, vocabulary=VOCABULARY)
        for one, other in zip(together[n].levels, alone.levels, strict=True):
            assert one.discount == other.discount
            for name in ("codes", "counts", "totals", "kinds"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("block", [1, 2, 3, 7])
@given(text=rows, n=lengths, scored=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30))
def test_a_long_text_is_scored_in_blocks_as_it_is_at_once(
    block: int, text: list[int], n: int, scored: list[int]
) -> None:
    model = NGram.fit(np.array(text), n=n, vocabulary=VOCABULARY)
    whole = model.probabilities(np.array(scored))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngram, "BLOCK", block)
        np.testing.assert_array_equal(model.probabilities(np.array(scored)), whole)


@given(rows)
def test_length_zero_is_the_uniform_model(text: list[int]) -> None:
    model = NGram.fit(np.array(text), n=0, vocabulary=VOCABULARY)
    assert model.bits_per_token(np.array(text), past=0) == pytest.approx(np.log2(VOCABULARY))


def test_a_bigram_by_hand() -> None:
    # 0 1 0 1 0 2: bigrams 01 x2, 10 x2, 02 x1; D_2 = 1/(1 + 2*2) = 1/5. Continuations: 0 after {1}, 1 after {0},
    # 2 after {0}: three 1s, so D_1 = 1 and p_1 = 1/4 each for V = 4. p(. | 0) = [0, 9/5, 4/5, 0]/3 + 1/5 * 2/3 * 1/4.
    model = NGram.fit(np.array([0, 1, 0, 1, 0, 2]), n=2, vocabulary=4)
    np.testing.assert_allclose(model.probability(np.array([0])), np.array([1, 19, 9, 1]) / 30, rtol=1e-15)


def test_longer_n_grams_predict_english_better_than_shorter_ones() -> None:
    parts = split(python_reference())
    tokenizer = CharacterTokenizer.train(parts.train + parts.validation)
    train, validation = tokenizer.encode(parts.train), tokenizer.encode(parts.validation)
    bits = [NGram.fit(train, n=n, vocabulary=tokenizer.size).bits_per_token(validation, past=n) for n in range(6)]
    assert bits[0] == pytest.approx(np.log2(tokenizer.size))
    assert bits == sorted(bits, reverse=True)
    assert bits[5] < 2


def test_a_large_vocabulary_and_a_large_n_do_not_overflow() -> None:
    vocabulary = 2**31
    row = np.array([vocabulary - 1, 0, vocabulary - 2] * 20)
    model = NGram.fit(row, n=8, vocabulary=vocabulary)
    assert model.probabilities(row)[-1] > 0.9


@pytest.mark.parametrize("token", [-1, VOCABULARY])
def test_a_token_outside_the_vocabulary_is_refused(token: int) -> None:
    model = NGram.fit(np.array([0, 1, 2]), n=2, vocabulary=VOCABULARY)
    for work in (model.probability, model.probabilities, lambda row: NGram.fit(row, n=2, vocabulary=VOCABULARY)):
        with pytest.raises(UserError, match=r"tokens must be in \[0, 5\)"):
            work(np.array([0, token, 1]))


def test_what_cannot_be_fitted_or_scored_is_refused() -> None:
    row = np.array([0, 1, 2])
    for n, vocabulary in ((-1, 3), (1, 0)):
        with pytest.raises(UserError, match="n of 0 or more"):
            NGram.fit(row, n=n, vocabulary=vocabulary)
    with pytest.raises(UserError, match="holds no 4-gram"):
        NGram.fit(row, n=4, vocabulary=3)
    with pytest.raises(UserError, match="no token to score after the first 3"):
        NGram.fit(row, n=1, vocabulary=3).bits_per_token(row, past=3)
    with pytest.raises(ValueError, match="one row"):
        NGram.fit(row.astype(float), n=1, vocabulary=3)


@settings(max_examples=30)
@given(rows, st.integers(1, 4), st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=8), st.integers(0, 8))
def test_the_logits_are_log_probabilities_whole_piece_by_piece_and_padded(
    text: list[int], n: int, history: list[int], cut: int
) -> None:
    """And the model comes back from its arrays."""
    model = NGram.fit(np.array(text), n=n, vocabulary=VOCABULARY)
    p, config = ngram.tree_of(model), ngram.config_of(model)
    assert dict(named_leaves(ngram.shapes(config))) == {name: x.shape for name, x in named_leaves(p)}
    ids = np.array([history])
    whole, back = ngram.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)
    for t in range(len(history)):
        np.testing.assert_allclose(np.exp(whole[0, t]), model.probability(np.array(history[: t + 1])), rtol=1e-13)
    padded = np.concatenate([[[0, 0]], ids], axis=1)
    store = CarriedState(ngram.state_shapes(config), batch=1, padding=np.array([2]), like=p["levels"][0]["codes"])
    pieces = [padded[:, : 2 + cut], padded[:, 2 + cut :]]
    parts = [
        ngram.forward(p, ids=piece, config=config, dropout_mask=None, cache=store)[0] for piece in pieces if piece.size
    ]
    assert np.array_equal(np.concatenate(parts, axis=1)[:, 2:], whole)
    with pytest.raises(ValueError, match="counts have no gradient"):
        back(whole)
