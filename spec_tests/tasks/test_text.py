"""Laws of a text that is learnt, of the parts that it is measured on, and of the models that count."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refllm.data.corpus import Corpus, Split, read_text, split, spread
from refllm.data.held_out import HeldOutWindows
from refllm.models.ngram import NGram
from refllm.tasks import counted
from refllm.tasks.counted import ORDERS, affordable_part, counted_bits
from refllm.tasks.text import LearntText, ReadText
from refllm.tokenizers import BytePairTokenizer, CharacterTokenizer, WordTokenizer
from spec_tests import tiny

TEXT = "".join(f"{n} mal {m} ist {n * m}, größer 🐈 als {n}.\n" for n in range(1, 20) for m in range(1, 20))
TOKENIZERS: dict[str, Any] = {
    "byte_pair": lambda text: BytePairTokenizer.train(text, vocabulary=300),
    "character": CharacterTokenizer.train,
    "word": lambda text: WordTokenizer.train(text, vocabulary=40, lower=True),
}
every_kind = pytest.mark.parametrize("kind", TOKENIZERS)


def learnt(kind: str) -> tuple[LearntText, Split]:
    corpus = Corpus("a text", TEXT)
    parts = split(corpus)
    return LearntText.of(ReadText.of(corpus, parts), TOKENIZERS[kind](TEXT)), parts


@every_kind
@pytest.mark.parametrize("most", [1, 5, 17, 10**6])
def test_the_measures_of_a_sample_are_those_of_its_tokens_and_characters(kind: str, most: int) -> None:
    text, parts = learnt(kind)
    made = HeldOutWindows(text.tokens, text.held_out.tokens, context=12, batch=3)
    spans = made.spans(most)
    tokens = sum(end - start for start, end in spans)
    found = text.held_out.measures(100.0, spans)
    assert found["val_loss"] == 100 / tokens
    if kind == "word":
        assert found["val_bpt"] == pytest.approx(100 / math.log(2) / tokens)
    else:
        places = text.held_out.characters(spans)
        assert found["val_bpc"] == pytest.approx(100 / math.log(2) / sum(end - start for start, end in places))
        assert all(0 <= start <= end <= len(parts.validation) for start, end in places)
    if most >= made.count:
        assert found == text.held_out.measures(100.0)


@every_kind
def test_the_models_that_count_are_measured_on_the_same_sample(kind: str) -> None:
    text, parts = learnt(kind)
    made = HeldOutWindows(text.tokens, text.held_out.tokens, context=12, batch=3)
    whole, note = counted_bits(text, None, seconds=None)
    assert note == ""
    assert whole == pytest.approx(counted_bits(text, made.spans(10**6), seconds=None)[0], rel=1e-12)
    spans = made.spans(5)
    sampled, _ = counted_bits(text, spans, seconds=None)
    if kind == "word":
        units, places, train, held_out = text.held_out.tokenizer, spans, text.tokens, text.held_out.tokens
    else:
        units, places = CharacterTokenizer(text.alphabet), text.held_out.characters(spans)
        train, held_out = units.encode(parts.train), units.encode(parts.validation)
    for name, n in ORDERS.items():
        p = NGram.fit(train, n=n, vocabulary=units.size).probabilities(held_out)
        chosen = np.concatenate([np.log2(p[start:end]) for start, end in places])
        assert sampled[name] == pytest.approx(-chosen.mean(), rel=1e-12)


def test_a_large_text_is_counted_at_its_end_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refllm.tasks.text.COUNTED", 1000)
    text, parts = learnt("character")
    bits, note = counted_bits(text, None, seconds=None)
    assert note == f"The n-gram models counted the last 1,000 of the {len(parts.train):,} characters to learn from."
    units = CharacterTokenizer.train(TEXT)
    model = NGram.fit(units.encode(parts.train[-1000:]), n=3, vocabulary=units.size)
    assert bits["order 2"] == pytest.approx(model.bits_per_token(units.encode(parts.validation), past=0))


def test_no_more_is_counted_than_the_time_permits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(counted, "time", clock)
    monkeypatch.setattr(counted, "TRIED", 100)

    def work(tokens: Any) -> None:
        clock.now += 0.01 * len(tokens)

    tokens = np.zeros(5000)
    assert affordable_part(tokens, work, seconds=None) == affordable_part(tokens, work, seconds=1e6) == 5000
    assert affordable_part(tokens, work, seconds=15.0) == 1000  # half as slow again is allowed for
    assert affordable_part(tokens, work, seconds=0.0) == 100


@pytest.mark.parametrize("most", [100, 1000, 5000])
def test_a_part_of_a_large_text_is_spread_over_it_and_all_of_a_small_one_is_taken(most: int) -> None:
    text = "".join(f"word{i} \n" for i in range(3000))
    part = spread(text, most=most, pieces=10)
    assert most * 0.8 <= len(part) <= most
    assert part[: most // 20] == text[: most // 20]
    assert part.endswith(text[-most // 20 :])
    assert spread(text, most=len(text)) is text


def test_paragraphs_are_taken_out_of_a_large_text_without_a_copy_where_none_is_there() -> None:
    text = "\n\n".join(f"Paragraph {i} of the text, which is longer than forty characters." for i in range(100))
    train = split(Corpus("x", text)).train
    assert text.startswith(train)


def test_the_tokens_of_a_text_are_kept_small(tmp_path: Path) -> None:
    text = LearntText.of(ReadText.of(*_read(tmp_path)), CharacterTokenizer.train(tiny.TEXT))
    assert text.tokens.dtype == np.uint8


def _read(folder: Path) -> tuple[Corpus, Split]:
    corpus = read_text([tiny.data(folder)])
    return corpus, split(corpus)
