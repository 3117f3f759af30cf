"""Laws of text written by a model."""

from __future__ import annotations

from typing import Any

import pytest

from refllm.generation import text
from refllm.generation.generate import generate
from refllm.generation.text import stream_text
from refllm.models import gpt
from refllm.tokenizers import BytePairTokenizer, CharacterTokenizer, Tokenizer, WordPieceTokenizer, WordTokenizer
from refllm.tokenizers.pieces import completed
from spec_tests.gradients import random_tree

TEXT = "naïve café, 中文, 日本語 🙂" * 3
TOKENIZERS = {"character": CharacterTokenizer.train(TEXT), "byte pairs": BytePairTokenizer.train(TEXT, vocabulary=260)}


def pieces(tokenizer: Any, **changes: Any) -> list[str]:
    config = gpt.Config(vocabulary=tokenizer.size, context=6, layers=1, heads=1, width=4, hidden=4)
    how: dict[str, Any] = {
        "new_tokens": 20, "temperature": 1.0, "top_k": None, "top_p": None, "greedy": False, "seed": 3, "device": "cpu",
        **changes,
    }  # fmt: skip
    p = random_tree(gpt.shapes(config), seed=0)
    prompt = tokenizer.encode("ca")
    return list(stream_text(p, model=gpt, config=config, tokenizer=tokenizer, prompt=prompt, **how))


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_the_pieces_are_whole_characters_and_the_same_for_the_same_seed(tokenizer: Any) -> None:
    text = "".join(pieces(tokenizer))
    assert text.encode()  # no half of a character, which UTF-8 refuses
    assert "".join(pieces(tokenizer)) == text
    assert "".join(pieces(tokenizer, seed=4)) != text


@pytest.mark.parametrize(
    "tokenizer",
    [
        *TOKENIZERS.values(),
        WordTokenizer.train("ca la ca", vocabulary=7, lower=True),
        WordPieceTokenizer.train("ca la ca", vocabulary=12, lower=True),
    ],
    ids=lambda one: one.kind,
)
def test_the_prompt_and_the_pieces_are_the_text_of_all_tokens(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def watched(*given: Any, **how: Any) -> Any:
        for tokens, logits in generate(*given, **how):
            written.append(int(tokens[0]))
            yield tokens, logits

    monkeypatch.setattr(text, "generate", watched)
    prompt = tokenizer.encode("ca")
    joined = tokenizer.decode(prompt) + "".join(pieces(tokenizer))
    assert len(written) == 20
    assert joined == completed([*prompt.tolist(), *written], tokenizer)


def test_a_character_that_the_tokens_end_in_the_middle_of_is_not_shown() -> None:
    """Greedy, the model of this seed writes bytes at random: for each length the text is a beginning of the longer."""
    longest = "".join(pieces(TOKENIZERS["byte pairs"], greedy=True, new_tokens=20))
    for n in range(1, 20):
        assert longest.startswith("".join(pieces(TOKENIZERS["byte pairs"], greedy=True, new_tokens=n)))


def test_a_character_model_writes_one_character_a_token() -> None:
    text = pieces(TOKENIZERS["character"])
    assert [len(piece) for piece in text] == [1] * 20
    assert set(text) <= set(TEXT)


def test_greedy_does_not_depend_on_the_seed() -> None:
    one, other = (pieces(TOKENIZERS["character"], greedy=True, seed=seed) for seed in (1, 2))
    assert one == other
