"""Laws of what an encoder-decoder writes for texts."""

from __future__ import annotations

import numpy
import pytest

from refllm.data.pairs import encoded
from refllm.models import encoder_decoder
from refllm.tasks.writing import written
from refllm.workers import Workers
from spec_tests.gradients import random_tree
from spec_tests.tasks.test_seq2seq import CONFIG, TOKENIZER

P = random_tree(encoder_decoder.shapes(CONFIG), seed=2)
TEXTS = ["one", "two dogs", "an old red car", "one two", "x", "red red red red"]


def write(texts: list[str], beams: int) -> list[str]:
    with Workers(2) as workers:
        return written(P, texts, config=CONFIG, tokenizer=TOKENIZER, beams=beams, device="cpu", workers=workers)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_gets_what_it_gets_alone_whatever_stands_beside_it(beams: int) -> None:
    together = write(TEXTS * 8, beams)
    assert together == [write([text], beams)[0] for text in TEXTS] * 8
    assert len(set(together)) > 1


def test_one_beam_takes_the_most_probable_token_until_the_end() -> None:
    for text, answer in zip(TEXTS, write(TEXTS, 1), strict=True):
        source = encoded(text, tokenizer=TOKENIZER)
        ids = [TOKENIZER.special.cls]
        while len(ids) <= CONFIG.context and ids[-1] != TOKENIZER.special.sep:
            logits, _ = encoder_decoder.forward(
                P, source=source[None], attention_mask=None, ids=numpy.array([ids]), config=CONFIG, dropout_mask=None
            )
            ids.append(int(logits[0, -1].argmax()))
        assert answer == TOKENIZER.decode(ids).strip()
