"""What refllm does around its models in practice, by the names of the golden files: words that are hidden for a masked
language model, prompts of unequal length, adapters, distillation, weights of 8 bits, byte pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array, to_host
from refllm.data import masking
from refllm.finetune import low_rank, stored
from refllm.finetune.distillation import distillation_loss
from refllm.generation import generate as generation
from refllm.models import by_name
from refllm.ops.linear import matmul
from refllm.parameters import Tree
from refllm.tokenizers import bpe

Pullback = Callable[[Array], Any]


def functions() -> dict[str, Callable[..., Any]]:
    own = (mask_words, generate_padded, low_rank_linear, distilled, quantised, learn_merges, encode_word)
    return {f.__name__: f for f in own if f is not distilled} | {"distillation_loss": distilled}


def mask_words(
    *, ids: Array, which: Array, how: Array, words: Array, special: Array, mask: int, share: float
) -> tuple[Array, Array, Array]:
    ids, which, how, words, special = map(to_host, (ids, which, how, words, special))  # masked on the host
    found = masking.mask_words(
        ids, masking.MaskingDraws(which, how, words), special=special.tolist(), mask=mask, share=share
    )  # fmt: skip
    return found.ids, found.positions, found.targets


def generate_padded(
    p: Tree,
    *,
    ids: Array,
    padding: Array,
    config: dict[str, Any],
    model: str = "gpt",
    uniforms: Array | None,
    **how: Any,
) -> tuple[Array, Array]:
    own, draws = by_name(model), None if uniforms is None else to_host(uniforms)
    steps = list(
        generation.generate(
            p, model=own, ids=ids, padding=padding, config=own.Config(**config), uniforms=draws, **how
        )
    )  # fmt: skip
    tokens = numpy.stack([chosen for chosen, _ in steps], axis=1)
    return numpy.concatenate([to_host(ids), tokens], axis=1), numpy.stack([each for _, each in steps], axis=1)


def low_rank_linear(x: Array, W: Array, A: Array, B: Array, *, alpha: float) -> tuple[Array, Pullback]:
    adapted, back_adapted = low_rank.low_rank(W, A, B, scale=alpha / A.shape[-1])
    y, back_y = matmul(x, adapted)

    def back(dy: Array) -> tuple[Array, Array, Array, Array]:
        dx, dadapted = back_y(dy)
        return dx, *back_adapted(dadapted)

    return y, back


def distilled(logits: Array, *, teacher: Array, **how: Any) -> tuple[Array, Pullback]:
    return distillation_loss(logits, teacher=teacher.astype(logits.dtype), **how)


def quantised(W: Array) -> tuple[Array, Array]:
    q, s = stored.quantised(W, axis=-2)
    return q.astype("int64"), s[0]


def learn_merges(*, words: Array, counts: Array, most: int) -> Array:
    words, counts = to_host(words), to_host(counts)
    spelled = ["".join(chr(i) for i in word if i >= 0) for word in words]
    merges = bpe.merges_of(spelled, counts.tolist(), most)
    return numpy.array([*merges, *[(-1, -1)] * (most - len(merges))], "int64").reshape(most, 2)


def encode_word(*, ids: Array, merges: Array) -> Array:
    ids, merges = to_host(ids), to_host(merges)
    tokenizer = bpe.BytePairTokenizer(tuple((int(a), int(b)) for a, b in merges))
    found = tokenizer.merged("".join(map(chr, ids)))
    return numpy.array([*found, *[-1] * (len(ids) - len(found))], "int64")
