"""Laws of beam search, and of writing until the end token, with every kind of model: with a cache of keys and values,
with a carried state, with both, and with a source to read. (GEN)"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.generation.beam import Hypothesis, beam_search
from refllm.generation.sequence import write
from refllm.generation.writer import CausalWriter, SequenceWriter, Writer
from refllm.models import encoder_decoder, gpt, hybrid, recurrent_lm
from refllm.ops.softmax import log_softmax
from refllm.parameters import Tree, map_leaves
from spec_tests.gradients import random_tree

V, START, END = 5, 1, 2
GPT = gpt.Config(vocabulary=V, context=12, layers=2, heads=2, width=8, hidden=12)
SIZES: dict[str, Any] = {
    "vocabulary": V, "context": 12, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "head_width": 4, "width": 8,
    "hidden": 12,
}  # fmt: skip
STYLES = {
    "2017": encoder_decoder.Config(**SIZES, scaled_embedding=True),
    "BART": encoder_decoder.Config(**SIZES, positions="learned", activation="gelu_erf", embedding_norm=True),
    "T5": encoder_decoder.Config(
        **SIZES, norm="pre", rms=True, positions="relative", biases=False, buckets=4, farthest=5, scaled_output=True
    ),
}
LANGUAGE_MODELS: dict[str, tuple[Any, Any]] = {
    "GPT": (gpt, GPT),
    "LSTM": (recurrent_lm, recurrent_lm.Config(vocabulary=V, context=12, layers=2, width=4, hidden=6)),
    "hybrid": (
        hybrid,
        hybrid.Config(vocabulary=V, context=12, layers=1, heads=2, width=8, hidden=5, cell="rnn", dropout=0.0),
    ),
}
MODELS = (*LANGUAGE_MODELS, *STYLES)
every_model = pytest.mark.parametrize("name", MODELS)
SOURCE, ALLOWED = numpy.array([[3, 4, 0, 1], [4, 2, 0, 0]]), numpy.arange(4) < numpy.array([[4], [2]])
PROMPTS = numpy.array([[3, 0, 4], [0, 0, 3]])


def parameters(name: str, seed: int = 0) -> Tree:
    """The head so large that continuations differ much in probability, and texts of many lengths are among the best."""
    model, config = LANGUAGE_MODELS.get(name) or (encoder_decoder, STYLES[name])
    return map_leaves(lambda leaf: leaf * 1.5, random_tree(model.shapes(config), seed))


def beginning(name: str) -> Any:
    return PROMPTS if name in LANGUAGE_MODELS else numpy.full((2, 1), START)


def writer(name: str, *, seed: int = 0, room: int = 12) -> Writer:
    p = parameters(name, seed)
    if name in LANGUAGE_MODELS:
        model, config = LANGUAGE_MODELS[name]
        return CausalWriter(p, model=model, config=config, rows=2, room=room, padding=None)
    return SequenceWriter(
        p, model=encoder_decoder, config=STYLES[name], source=SOURCE, attention_mask=ALLOWED, room=room
    )


def log_probabilities(name: str, row: int, texts: Any, seed: int = 0) -> Any:
    """log P of each token (n, L, V) of texts (n, L) of one row, in one forward pass, without a cache."""
    p, n = parameters(name, seed), len(texts)
    begin = beginning(name)[row : row + 1].repeat(n, axis=0)
    ids = numpy.concatenate([begin, texts[:, :-1]], axis=1)
    if name in LANGUAGE_MODELS:
        model, config = LANGUAGE_MODELS[name]
        y = model.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)[0]
    else:
        y = encoder_decoder.forward(
            p, source=SOURCE[row : row + 1].repeat(n, axis=0), attention_mask=ALLOWED[row : row + 1].repeat(n, axis=0),
            ids=ids, config=STYLES[name], dropout_mask=None,
        )[0]  # fmt: skip
    return log_softmax(y[:, begin.shape[1] - 1 :])[0]


def log_probability(name: str, row: int, tokens: tuple[int, ...], seed: int = 0) -> float:
    each = log_probabilities(name, row, numpy.array([tokens]), seed)[0]
    return float(sum(each[t, token] for t, token in enumerate(tokens)))


def search(name: str, *, seed: int = 0, **changes: Any) -> list[list[Hypothesis]]:
    how: dict[str, Any] = {"new_tokens": 5, "end": END, "beams": 3, "length_penalty": 1.0, **changes}
    return beam_search(writer(name, seed=seed), ids=beginning(name), **how)


@pytest.mark.one_in(4)
@every_model
@settings(max_examples=8)
@given(seed=st.integers(0, 99), beams=st.integers(1, 6), penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]))
def test_every_text_has_the_probability_that_the_model_gives_it(
    name: str, seed: int, beams: int, penalty: float
) -> None:
    """With the cache, whose rows beams have copied, as without it; the best first; no text twice; each ends once."""
    for row, texts in enumerate(search(name, seed=seed, beams=beams, length_penalty=penalty)):
        assert 1 <= len(texts) <= beams
        assert len({text.tokens for text in texts}) == len(texts)
        assert texts == sorted(texts, key=lambda text: -text.score)
        for text in texts:
            assert END not in text.tokens[:-1]
            assert len(text.tokens) == 5 or text.tokens[-1] == END
            expected = log_probability(name, row, text.tokens, seed)
            assert text.log_probability == pytest.approx(expected, rel=1e-9)
            assert text.score == pytest.approx(expected / len(text.tokens) ** penalty, rel=1e-9)


@pytest.mark.one_in(4)
@every_model
@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_with_beams_for_every_text_the_best_of_all_texts_are_found(name: str, penalty: float, seed: int) -> None:
    """All texts of up to 3 tokens, 4 + 16 + 4 · 16 · ... of them, scored one by one."""
    found = search(name, seed=seed, new_tokens=3, beams=V**3, length_penalty=penalty)
    for row in range(2):
        every = numpy.array(list(itertools.product(range(V), repeat=3)))
        each = numpy.take_along_axis(log_probabilities(name, row, every, seed), every[..., None], axis=-1)[..., 0]
        scores: dict[tuple[int, ...], float] = {}
        for tokens, log_p in zip(every.tolist(), each, strict=True):
            length = tokens.index(END) + 1 if END in tokens else 3
            scores[tuple(tokens[:length])] = float(log_p[:length].sum()) / length**penalty
        best = sorted(scores, key=lambda text: -scores[text])
        assert len(found[row]) == len(best)
        numpy.testing.assert_allclose([t.score for t in found[row]], [scores[t] for t in best], rtol=1e-9)
        assert found[row][0].tokens == best[0]


@every_model
@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy_choice(name: str, seed: int) -> None:
    greedy = write(
        writer(name, seed=seed), ids=beginning(name), new_tokens=6, end=END, temperature=1.0, top_k=None, top_p=None,
        uniforms=None,
    )  # fmt: skip
    found = search(name, seed=seed, new_tokens=6, beams=1, length_penalty=0.0)
    assert [texts[0].tokens for texts in found] == greedy


@pytest.mark.one_in(8)
@every_model
@pytest.mark.parametrize("seed", range(5))
def test_the_search_stops_only_when_nothing_better_can_come(name: str, seed: int) -> None:
    """It finds what it finds with an end that cannot be told: by a bound of its own it would have missed texts."""
    stopped, steps = counted(writer(name, seed=seed))
    early = beam_search(stopped, ids=beginning(name), new_tokens=9, end=END, beams=2, length_penalty=1.0)
    whole = unbounded(name, seed)
    assert [[t.tokens for t in texts] for texts in early] == whole
    assert 1 <= len(steps) <= 9


def counted(inner: Writer) -> tuple[Writer, list[int]]:
    """The same writer, and a list that grows with each call of the model."""
    steps: list[int] = []

    class Counted:
        room = inner.room
        expand, copy_rows = staticmethod(inner.expand), staticmethod(inner.copy_rows)

        def logits(self, ids: Any) -> Any:
            steps.append(len(ids))
            return inner.logits(ids)

    return Counted(), steps


def unbounded(name: str, seed: int) -> list[list[tuple[int, ...]]]:
    """Beam search by its description, without an early end and without a cache: every step scores whole texts."""
    found = []
    for row in range(2):
        live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        finished: list[tuple[float, tuple[int, ...]]] = []
        for step in range(9):
            candidates = []
            for log_p, tokens in live:
                following = log_probabilities(name, row, numpy.array([(*tokens, 0)]), seed)[0, -1]
                candidates += [(log_p + float(following[t]), (*tokens, t)) for t in range(V)]
            candidates.sort(key=lambda candidate: -candidate[0])
            ends = [c for c in candidates[:2] if c[1][-1] == END or step == 8]
            finished += [(log_p / len(tokens), tokens) for log_p, tokens in ends]
            live = [c for c in candidates[:4] if c[1][-1] != END][:2]
        found.append([tokens for _, tokens in sorted(finished, key=lambda text: -text[0])[:2]])
    return found


def test_the_search_ends_early_where_it_can() -> None:
    """A model that is sure of the end token is asked once, not nine times."""
    p = parameters("2017")
    p["token"][END] *= 0
    p["token"][END] += 30 * p["decoder"]["layers"][-1]["norm3"]["b"]
    sure, steps = counted(
        SequenceWriter(p, model=encoder_decoder, config=STYLES["2017"], source=SOURCE, attention_mask=ALLOWED, room=12)
    )
    texts = beam_search(sure, ids=beginning("2017"), new_tokens=9, end=END, beams=1, length_penalty=0.0)
    assert [text[0].tokens for text in texts] == [(END,), (END,)]
    assert len(steps) == 1


@every_model
def test_rows_do_not_know_of_each_other(name: str) -> None:
    both = search(name, beams=4)
    p = parameters(name)
    for row in range(2):
        n = slice(row, row + 1)
        alone: Writer
        if name in LANGUAGE_MODELS:
            model, config = LANGUAGE_MODELS[name]
            alone = CausalWriter(p, model=model, config=config, rows=1, room=12, padding=None)
        else:
            alone = SequenceWriter(
                p, model=encoder_decoder, config=STYLES[name], source=SOURCE[n], attention_mask=ALLOWED[n], room=12
            )
        texts = beam_search(alone, ids=beginning(name)[n], new_tokens=5, end=END, beams=4, length_penalty=1.0)[0]
        assert [t.tokens for t in texts] == [t.tokens for t in both[row]]


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_prompt_that_is_padded_on_the_left_goes_on_as_without_the_padding(name: str) -> None:
    p, (model, config) = parameters(name), LANGUAGE_MODELS[name]
    padded = CausalWriter(p, model=model, config=config, rows=2, room=8, padding=numpy.array([0, 2]))
    texts = beam_search(padded, ids=PROMPTS, new_tokens=5, end=END, beams=3, length_penalty=1.0)
    alone = CausalWriter(p, model=model, config=config, rows=1, room=8, padding=None)
    expected = beam_search(alone, ids=PROMPTS[1:, 2:], new_tokens=5, end=END, beams=3, length_penalty=1.0)
    assert [t.tokens for t in texts[1]] == [t.tokens for t in expected[0]]


def test_without_an_end_token_every_text_has_the_full_length() -> None:
    for texts in search("2017", end=None, beams=4):
        assert {len(text.tokens) for text in texts} == {5}


def test_a_longer_text_wins_with_a_larger_penalty() -> None:
    """log P falls with every token, so α = 0 favours short texts; dividing by the length takes that away."""
    lengths = [
        sum(len(texts[0].tokens) for seed in range(10) for texts in search("2017", seed=seed, length_penalty=penalty))
        for penalty in (0.0, 1.0, 4.0)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


def test_the_cache_is_copied_only_where_a_text_has_two_continuations() -> None:
    """As many copies as places whose text died; a text with one continuation stays where it is."""
    copies: list[tuple[int, int]] = []
    inner = writer("T5")

    class Watched:
        room, logits, expand = inner.room, staticmethod(inner.logits), staticmethod(inner.expand)

        def copy_rows(self, sources: Any, targets: Any) -> None:
            assert not set(sources) & set(targets)
            assert len(set(targets)) == len(targets)
            copies.extend(zip(sources, targets, strict=True))
            inner.copy_rows(sources, targets)

    beam_search(Watched(), ids=beginning("T5"), new_tokens=6, end=END, beams=4, length_penalty=1.0)
    assert 0 < len(copies) < 5 * 2 * 3  # at most 3 of 4 places can die in a step


@every_model
@settings(max_examples=8)
@given(seed=st.integers(0, 99))
def test_sampling_stops_each_row_at_its_end_token(name: str, seed: int) -> None:
    uniforms = numpy.random.default_rng(seed).random((2, 8))
    how: dict[str, Any] = {"ids": beginning(name), "new_tokens": 8, "temperature": 2.0, "top_k": None, "top_p": None}
    texts = write(writer(name), **how, end=END, uniforms=uniforms)
    endless = write(writer(name), **how, end=None, uniforms=uniforms)
    for text, whole in zip(texts, endless, strict=True):
        cut = whole.index(END) + 1 if END in whole else 8
        assert text == whole[:cut]
        assert len(whole) == 8


@every_model
def test_greedy_is_the_chain_of_most_probable_tokens(name: str) -> None:
    texts = write(
        writer(name), ids=beginning(name), new_tokens=7, end=None, temperature=1.0, top_k=None, top_p=None,
        uniforms=None,
    )  # fmt: skip
    for row, text in enumerate(texts):
        assert log_probabilities(name, row, numpy.array([text]))[0].argmax(axis=-1).tolist() == list(text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"beams": 0}, "beams must be at least 1, got 0"),
        ({"length_penalty": -1.0}, "the length penalty must be at least 0"),
        ({"length_penalty": math.inf}, "the length penalty must be at least 0 and finite"),
        ({"new_tokens": 0}, "the number of new tokens must be at least 1, got 0"),
        ({"new_tokens": 13}, "1 tokens to begin with and 13 new ones need room for 13, and there is 12"),
    ],
)
def test_an_impossible_search_is_refused_in_one_line(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        search("2017", **change)


def test_room_beyond_the_context_is_refused() -> None:
    for name in ("GPT", "hybrid", "2017"):
        with pytest.raises(UserError, match=r"the room to write in must be 1 to 12 tokens \(context\), not 13"):
            writer(name, room=13)
    assert writer("LSTM", room=13).room == 13  # a state alone is never full
    with pytest.raises(UserError, match="0 tokens to begin with"):
        write(
            writer("GPT"), ids=PROMPTS[:, :0], new_tokens=1, end=END, temperature=1.0, top_k=None, top_p=None,
            uniforms=None,
        )  # fmt: skip
