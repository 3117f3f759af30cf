"""From a run and a text to its explanation: what each kind of model is asked."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from refllm.backend import Array, namespace, to_device, to_host
from refllm.commands.sequences import Search, require_readable, tokens_for
from refllm.data.classification import by_length, marked_texts
from refllm.data.pairs import encoded
from refllm.errors import UserError
from refllm.explain.attention import attention_maps
from refllm.explain.attribution import gradient_times_input, integrated_gradients
from refllm.explain.classifier import baseline_vectors, label_answer, word_vectors
from refllm.explain.explanation import AttentionMap, Explanation, LabelScores
from refllm.models import bert, encoder_decoder
from refllm.parameters import Tree, map_leaves
from refllm.tasks.labels import label_log_probabilities, most_probable
from refllm.tasks.writing import longest_written, written
from refllm.tokenizers.pieces import piece_of
from refllm.tokenizers.vocabulary import SPECIAL
from refllm.trained import Trained
from refllm.workers import Workers

TOLERANCE = 1e-3  # of the change from the baseline to the text: what integrated gradients may miss of it


@dataclass(frozen=True)
class Asked:
    """What the user wants to know, and where it is computed."""

    method: str
    label: str | None
    answer: str
    baseline: str
    steps: int
    target: str | None
    device: str


def explained(trained: Trained, text: str, asked: Asked) -> Explanation:
    """The explanation of a text by the model of a run, computed in float64.

    Raises: UserError for a run without attention, a label that the run does not have, a text without tokens.
    """
    kind = trained.description["model"]
    if kind == "ngram":
        raise UserError("an n-gram counts and has nothing to explain; give the run of a Transformer")
    if asked.target is not None and kind != "encoder_decoder":
        raise UserError(f"--target is for an encoder-decoder, and this is a run of {kind}; leave it out")
    p = map_leaves(lambda x: x.astype("float64"), trained.parameters)
    if kind == "bert":
        return _of_bert(p, trained, text, asked)
    if kind == "encoder_decoder":
        return _of_encoder_decoder(p, trained, text, asked)
    return _of_language_model(p, trained, text, asked)


def token_names(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """A name for each token: its piece of text with ␣ for a space and <E9> for a byte that is no whole character; that
    of a special token."""
    special = dict(zip(getattr(tokenizer, "special", ()), SPECIAL, strict=False))
    names = [special.get(i) or _listed(i, tokenizer) for i in ids]
    return [(name if name.isprintable() else repr(name)[1:-1]).replace(" ", "␣") or "''" for name in names]


def _listed(i: int, tokenizer: Any) -> str:
    """A token as its tokenizer lists it, such as ##s; where it lists bytes or characters, as text."""
    listed = getattr(getattr(tokenizer, "inner", tokenizer), "vocabulary", None)
    as_text = isinstance(listed, tuple) and isinstance(listed[i], str)
    return str(listed[i]) if as_text and listed is not None else piece_of(i, tokenizer)


def _of_bert(p: Tree, trained: Trained, text: str, asked: Asked) -> Explanation:
    config, tokenizer = trained.config, trained.tokenizer
    marked, cut = marked_texts([text], tokenizer=tokenizer, context=config.context)
    if cut:
        print(
            f"the text is longer than the context of {config.context} tokens: it is read up to there", file=sys.stderr
        )
    (host, host_segments) = marked[0]
    ids, segments = to_device(host, asked.device), to_device(host_segments, asked.device)
    tokens = token_names(host.tolist(), tokenizer)
    maps = attention_maps(
        lambda: bert.encode(
            p, ids=ids[None], segments=segments[None], attention_mask=None, config=config, dropout_mask=None
        )
    )
    named = [_map(str(i), x, tokens, tokens) for i, x in enumerate(maps, start=1)]
    if trained.description.get("task") != "classify":
        return Explanation(text, tokens, None, None, named)
    labels = trained.description["labels"]
    with Workers(1) as workers:
        pieces = by_length(marked, pad=tokenizer.special.pad)  # type: ignore[attr-defined]
        (row,) = label_log_probabilities(p, pieces, config=config, device=asked.device, workers=workers)
    probabilities = {label: math.exp(x) for label, x in zip(labels, row, strict=True)}
    if asked.method == "attention":
        return Explanation(text, tokens, probabilities, None, named)
    label = labels[most_probable(row)] if asked.label is None else asked.label
    if label not in labels:
        raise UserError(f"the label {label!r} was never seen in training, which had {', '.join(labels)}; give one")
    scores = _label_scores(p, ids, segments, labels.index(label), trained, asked)
    return Explanation(text, tokens, probabilities, scores, named)


def _label_scores(p: Tree, ids: Array, segments: Array, label: int, trained: Trained, asked: Asked) -> LabelScores:
    tokenizer: Any = trained.tokenizer
    f = label_answer(p, segments=segments, label=label, answer=asked.answer, config=trained.config)
    x = word_vectors(p, ids=ids)
    b = baseline_vectors(p, ids=ids, kind=asked.baseline, special=tokenizer.special)
    path = asked.method == "integrated-gradients"
    found = gradient_times_input(f, x, b)
    if path:
        found = integrated_gradients(f, x, b, tolerance=TOLERANCE, steps=asked.steps)
    return LabelScores(
        method=asked.method, label=trained.description["labels"][label], answer=asked.answer, baseline=asked.baseline,
        steps=found.steps if path else None, scores=to_host(found.scores).tolist(), value=found.value,
        baseline_value=found.baseline_value, missing=found.missing,
    )  # fmt: skip


def _of_language_model(p: Tree, trained: Trained, text: str, asked: Asked) -> Explanation:
    host = trained.tokenizer.encode(text)
    if not len(host):
        raise UserError("the text has no token; give one with words")
    if len(host) > trained.config.context:
        print(
            f"the text is longer than the context of {trained.config.context} tokens: its beginning is left out",
            file=sys.stderr,
        )
        host = host[-trained.config.context :]
    ids, tokens = to_device(host, asked.device)[None], token_names(host.tolist(), trained.tokenizer)
    maps = attention_maps(
        lambda: trained.model.forward(p, ids=ids, config=trained.config, dropout_mask=None, cache=None)
    )
    named = [_map(str(i), x, tokens, tokens) for i, x in enumerate(maps, start=1)]
    return Explanation(text, tokens, None, None, named)


def _of_encoder_decoder(p: Tree, trained: Trained, text: str, asked: Asked) -> Explanation:
    """The encoder's layers, then of each layer of the decoder its own attention and that to the source."""
    tokenizer: Any = trained.tokenizer
    config = trained.config
    source, before = (_published_sides if trained.writing else _sides)(p, trained, text, asked)
    tokens, read = (token_names(ids.tolist(), tokenizer) for ids in (source, before))
    there, ids = (to_device(part, asked.device)[None] for part in (source, before))
    maps = attention_maps(
        lambda: encoder_decoder.forward(p, source=there, attention_mask=None, ids=ids, config=config, dropout_mask=None)
    )
    n = config.encoder_layers
    named = [_map(f"encoder.{i + 1}", x, tokens, tokens) for i, x in enumerate(maps[:n])]
    for i, (own, across) in enumerate(zip(maps[n::2], maps[n + 1 :: 2], strict=True), start=1):
        named += [_map(f"decoder.{i}", own, read, read), _map(f"cross.{i}", across, read, tokens)]
    return Explanation(text, tokens, None, None, named)


def _sides(p: Tree, trained: Trained, text: str, asked: Asked) -> tuple[Array, Array]:
    """What the encoder of a run reads, and what its decoder reads: the target, a place behind."""
    tokenizer: Any = trained.tokenizer
    target = asked.target
    if target is None:
        with Workers(1) as workers:
            (target,) = written(
                p, [text], config=trained.config, tokenizer=tokenizer, beams=1, device=asked.device, workers=workers
            )
    end = encoded(target, tokenizer=tokenizer)
    return encoded(text, tokenizer=tokenizer), namespace(end).concatenate([[tokenizer.special.cls], end[:-1]])


def _published_sides(p: Tree, trained: Trained, text: str, asked: Asked) -> tuple[Array, Array]:
    """The same of a published model, which begins with the token that its files name."""
    tokenizer: Any = trained.tokenizer
    source = tokenizer.marked(text)
    require_readable(source, trained.config.context)
    if asked.target is None:
        search = Search(1, None, greedy=True, temperature=1.0, top_k=None, top_p=None, seed=0)
        in_float64 = replace(trained, parameters=p)
        after = list(
            tokens_for(in_float64, source, tokens=longest_written(len(source)), search=search, device=asked.device)
        )
    else:
        after = tokenizer.marked(asked.target).tolist()
        require_readable(after, trained.config.context)
    assert trained.writing is not None
    return source, namespace(source).asarray([trained.writing.start, *after[:-1]])


def _map(name: str, weights: Array, queries: list[str], keys: list[str]) -> AttentionMap:
    return AttentionMap(name, queries, keys, to_host(weights)[0].tolist())
