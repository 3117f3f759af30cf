"""Text in, text out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice, takewhile
from typing import Any

from refllm.backend import Array, generator, to_device
from refllm.generation.generate import Generator, generate
from refllm.parameters import Tree
from refllm.tokenizers import Tokenizer


def stream_text(
    p: Tree,
    *,
    model: Generator,
    config: Any,
    tokenizer: Tokenizer,
    prompt: Array,
    new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    greedy: bool,
    seed: int,
    device: str,
    ends: frozenset[int] = frozenset(),
) -> Iterator[str]:
    """What the model writes after the prompt (T,), piece by piece: the characters that each token completes, a word's
    after the space that the tokenizer puts between it and the prompt. Of a last character that the tokens end in the
    middle of, nothing is shown. A token of `ends` ends the text."""
    uniforms = None if greedy else generator(seed).random((1, new_tokens))
    steps = generate(
        p, model=model, ids=to_device(prompt[None], device), padding=None, config=config, new_tokens=new_tokens,
        temperature=temperature, top_k=top_k, top_p=top_p, uniforms=uniforms, cache=True,
    )  # fmt: skip
    chosen = (int(tokens[0]) for tokens, _ in steps)
    ended = False

    def until_the_end() -> Iterator[int]:
        nonlocal ended
        yield from takewhile(lambda token: token not in ends, chosen)
        ended = True

    for piece in islice(tokenizer.stream(chain(prompt.tolist(), until_the_end())), len(prompt), None):
        if ended:  # the piece is what was left of a character
            return
        yield piece
