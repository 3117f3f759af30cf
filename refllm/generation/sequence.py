"""Texts that end: greedy choice and sampling until the end token."""

from __future__ import annotations

from refllm.backend import Array
from refllm.differentiable import declared_kinds
from refllm.generation.sampling import choose
from refllm.generation.writer import Writer, require_step


@declared_kinds
def write(
    writer: Writer,
    *,
    ids: Array,
    new_tokens: int,
    end: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    uniforms: Array | None,
) -> list[tuple[int, ...]]:
    """GEN: what follows each row of `ids` (B, T): tokens up to the end token, which is the last, at most `new_tokens`

    `ids` is a prompt, or for an encoder-decoder the start token. `uniforms` (B, new_tokens), on the host, are the
    draws; None chooses the most probable token: see `choose`. All rows take part in every step until the last has
    ended.
    Source:  documents 002 sec. 3.2, 004 sec. 4.1.
    Raises:  UserError if the writer has no room for them.

    >>> from refllm.generation.writer import CausalWriter
    >>> from refllm.models import gpt
    >>> config = gpt.Config(vocabulary=3, context=8, layers=1, heads=1, width=2, hidden=2)
    >>> p = map_leaves(zeros, gpt.shapes(config))
    >>> writer = CausalWriter(p, model=gpt, config=config, rows=1, room=8, padding=None)
    >>> how = {"temperature": 1.0, "top_k": None, "top_p": None, "uniforms": array([[0.1, 0.5, 0.9, 0.1]])}
    >>> write(writer, ids=array([[0]]), new_tokens=4, end=2, **how)  # token 2 ends it
    [(0, 1, 2)]
    """
    require_step(writer, ids, new_tokens)
    written: list[tuple[int, ...]] = [() for _ in range(len(ids))]
    logits = writer.logits(ids)
    for step in range(new_tokens):
        drawn = None if uniforms is None else uniforms[:, step]
        chosen = choose(logits, temperature=temperature, top_k=top_k, top_p=top_p, uniforms=drawn).tolist()
        for row, token in enumerate(chosen):
            if end is None or end not in written[row][-1:]:
                written[row] += (token,)
        if step + 1 == new_tokens or all(end in row[-1:] for row in written):
            break
        logits = writer.logits([[token] for token in chosen])
    return written
