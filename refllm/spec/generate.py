"""The loop around the model: a text that goes on, and a text that is translated."""

from collections.abc import Callable
from typing import Any

from refllm.spec.array import Array, Pullback, Tree, integers, part, stack, zeros
from refllm.spec.encoder_decoder import encoder_decoder
from refllm.spec.sampling import choose, greedy

Model = Callable[..., tuple[Array, Pullback]]
NOTHING = -1  # stands where there is no token


def generate(
    p: Tree, *, model: Model, ids: Array, new_tokens: int, temperature: float, top_k: int | None, top_p: float | None,
    uniforms: Array | None, config: Tree,
) -> tuple[Array, Array]:  # fmt: skip
    """GEN: the prompt and `new_tokens` more, and the logits that each was chosen from; greedy without uniforms

    The first step embeds the LAST token of the prompt (erratum E6). Every row of a batch is what it would be alone.
    Source:  documents 002 sec. 3.2.
    Shapes:  ids (..., T); uniforms (..., N) -> ids (..., T+N), logits (..., N, V)
    """
    if ids.ndim == 2:
        draws = [None] * len(ids) if uniforms is None else uniforms
        how = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "config": config}
        rows = []
        for b, (row, u) in enumerate(zip(ids, draws, strict=True)):
            with part(f"rows.{b}"):
                rows.append(generate(p, model=model, ids=row, new_tokens=new_tokens, uniforms=u, **how))
        texts, logits = zip(*rows, strict=True)
        return stack(texts, axis=0), stack(logits, axis=0)

    tokens, seen = list(ids), []
    for n in range(new_tokens):
        last = next_logits(p, model, tokens, config=config)
        if uniforms is None:
            token = greedy(last)
        else:
            token = choose(last, temperature=temperature, top_k=top_k, top_p=top_p, uniform=uniforms[n])
        tokens.append(token)
        seen.append(last)
    return integers(tokens), stack(seen, axis=0)


def generate_padded(p: Tree, *, ids: Array, padding: Array, **how: Any) -> tuple[Array, Array]:
    """GEN: `generate` for prompts of unequal length, which begin with `padding` places that hold no token

    Every row is what it would be alone: its positions are counted from its own first token, and no place of padding is
    attended. What stands there changes nothing, and stays.
    Source:  documents 002 sec. 3.2.
    Shapes:  ids (B, T); padding (B,) -> ids (B, T+N), logits (B, N, V)
    """
    draws = how.pop("uniforms")
    texts, logits = [], []
    for b, first in enumerate(padding):
        own = None if draws is None else draws[b]
        with part(f"rows.{b}"):
            text, seen = generate(p, ids=ids[b, first:], uniforms=own, **how)
        texts.append([*ids[b, :first], *text])
        logits.append(seen)
    return integers(texts), stack(logits, axis=0)


def next_logits(p: Tree, model: Model, tokens: list[int], **how: Tree) -> Array:
    """LMHEAD: the logits (V,) of the token after the last."""
    logits, _ = model(p, ids=integers(tokens)[None], **how)
    return logits[0, -1]


def translate(
    p: Tree, *, source: Array, attention_mask: Array | None, start: int, end: int | None, new_tokens: int, config: Tree
) -> tuple[Array, Array]:
    """GEN, ENCDEC: the most probable token at every step, from `start` on, until `end`, which is the last, or
    `new_tokens`; and the logits. After the end there is no token (-1) and no logit (0).

    Source:  Sutskever et al. 2014 (arXiv:1409.3215) sec. 3.2; documents 004 sec. 4.1.
    Shapes:  source (B, S); attention_mask bool (B, S) -> ids (B, N), logits (B, N, V)
    """
    texts, logits = [], []
    for b in range(len(source)):
        reading = {
            "source": source[b : b + 1],
            "attention_mask": None if attention_mask is None else attention_mask[b : b + 1],
        }
        tokens, seen = list[int](), list[Array]()
        while len(tokens) < new_tokens and end not in tokens:
            last = next_logits(p, encoder_decoder, [start, *tokens], **reading, config=config)
            tokens.append(greedy(last))
            seen.append(last)
        missing = new_tokens - len(tokens)
        texts.append(tokens + [NOTHING] * missing)
        logits.append(stack(seen + [zeros(last.shape, last)] * missing, axis=0))
    return integers(texts), stack(logits, axis=0)
