"""refllm embed: a vector for each text."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from refllm.backend import Array, allow_tf32, device_namespace, namespace, to_device, to_host
from refllm.commands.choices import add_device_arguments, add_weights_argument
from refllm.commands.texts import texts_of
from refllm.directory import require_free
from refllm.errors import UserError
from refllm.models import bert
from refllm.ops.contrastive import mean_pool
from refllm.tokenizers import begun
from refllm.trained import Trained, load_model

DESCRIPTION = """A vector for each text, by default the mean of the hidden states of its tokens, of length 1: the
product of two of them is the cosine of their angle. Texts are arguments, the lines of a
file, or those of the standard input.

example: refllm embed models/all-MiniLM-L6-v2 "The man is eating food." "Someone eats a meal." --similar"""

LESS_MEMORY = "use --device cpu, a smaller model or shorter texts"
POOLS = ("mean", "cls", "pooled")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_directory", metavar="RUN", help="a run or a published model")
    add("texts", metavar="TEXT", nargs="*", help="texts to embed")
    add("--file", help="texts to embed: a line a text, or a table with a column of texts")
    add("--text", default="text", metavar="COLUMN", help="of the texts in a table (default text)")
    add("--pool", choices=POOLS, default="mean", help="mean of all tokens, the first, or BERT's pooler (default mean)")
    add("--no-normalise", action="store_true", help="vectors of their own lengths")
    add("--similar", action="store_true", help="the cosines of all pairs in the place of the vectors")
    add("--out", metavar="FILE", help="write the vectors into a new .npy file, a row a text")
    add("--cut", action="store_true", help="of texts longer than the model read the beginning alone")
    add_device_arguments(parser)
    add_weights_argument(parser)


def run(options: argparse.Namespace) -> int:
    device_namespace(options.device)
    allow_tf32(options.tf32, options.device)
    if options.out is not None:
        require_free(Path(options.out), ".npy")
    texts = texts_of(options, column=options.text)
    trained = load_model(Path(options.run_directory), options.device, options.weights)
    rows = [
        embedded(trained, text, where, pool=options.pool, cut=options.cut, device=options.device)
        for text, where in texts
    ]
    xp = namespace(rows[0])
    vectors = xp.stack(rows)
    if not options.no_normalise:
        vectors = normalised(vectors)
    if options.out is not None:
        with open(options.out, "wb") as file:
            xp.save(file, vectors)
        print(f"{len(vectors):,} vectors of {vectors.shape[1]:,} numbers in {options.out}")
    elif options.similar:
        _print_cosines([text for text, _ in texts], vectors)
    else:
        for (text, _), row in zip(texts, vectors.tolist(), strict=True):
            sys.stdout.write(json.dumps({"text": text, "vector": row}) + "\n")
    return 0


def embedded(trained: Trained, text: str, where: str, *, pool: str, cut: bool, device: str) -> Array:
    """The vector of a text (C,), on the host. UserError for a text that is longer than the model reads, and for a model
    without what is pooled."""
    ids, context = _ids_of(trained, text), trained.config.context
    if len(ids) > context:
        if not cut:
            raise UserError(
                f"{where}: the text has {len(ids):,} tokens, the model reads {context:,}; shorten it, or --cut"
            )
        ids = ids[:context]
    batch = to_device(ids[None], device)
    xp = namespace(batch)
    if trained.model is bert:
        h, _ = bert.encode(
            trained.parameters, ids=batch, segments=xp.zeros_like(batch), attention_mask=None, config=trained.config,
            dropout_mask=None,
        )  # fmt: skip
    elif (
        hasattr(trained.model, "hidden_states")
        and hasattr(trained.model, "forward")
        and "source" not in _asked(trained)
    ):
        h, _ = trained.model.hidden_states(
            trained.parameters, ids=batch, config=trained.config, dropout_mask=None, cache=None
        )
    else:
        raise UserError(f"a model of the kind {trained.description['model']} has no states to pool; give another one")
    return to_host(_pooled(trained, h, pool))


def _asked(trained: Trained) -> tuple[str, ...]:
    import inspect

    return tuple(inspect.signature(trained.model.hidden_states).parameters)


def _pooled(trained: Trained, h: Array, pool: str) -> Array:
    if pool == "pooled":
        if trained.model is not bert or "pooler" not in trained.parameters:
            raise UserError("this model has no pooler; take --pool mean or --pool cls")
        return bert.pooled(h, trained.parameters)[0][0]
    if pool == "cls":
        return h[0, 0]
    return mean_pool(h, token_mask=None)[0][0]


def _ids_of(trained: Trained, text: str) -> Any:
    """The tokens of a text with what stands around it: what its tokenizer says, or [CLS] and [SEP] for BERT."""
    tokenizer: Any = trained.tokenizer
    if hasattr(tokenizer, "marked"):
        ids = tokenizer.marked(text)
    else:
        ids = begun(tokenizer, text)
        if trained.model is bert:
            special = tokenizer.special
            ids = namespace(ids).concatenate([[special.cls], ids, [special.sep]])
    if not len(ids):
        raise UserError("a text without a token has no vector; give one with a word")
    return ids


def normalised(vectors: Array) -> Array:
    """Each row over its length; a row of zeros stays."""
    xp = namespace(vectors)
    lengths = xp.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    return vectors / xp.where(lengths > 0, lengths, 1)


def _print_cosines(texts: list[str], vectors: Array) -> None:
    unit = normalised(vectors)
    cosines = unit @ unit.T
    for i, text in enumerate(texts):
        print(f"{' '.join(f'{c:6.3f}' for c in cosines[i].tolist())}  {' '.join(text.split())[:60]}")
