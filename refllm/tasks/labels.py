"""How probable each label of a text is: by a classifier, by several, or by a language model that reads a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from refllm.backend import to_device, to_host
from refllm.data.classification import Piece, continued
from refllm.errors import UserError
from refllm.models import bert
from refllm.ops.cross_entropy import cross_entropy
from refllm.ops.softmax import log_softmax
from refllm.parameters import Tree, map_leaves
from refllm.workers import Workers

PROMPT = "Text: {text}\nLabel: {label}\n"


def label_log_probabilities(
    p: Tree, pieces: Sequence[Piece], *, config: bert.Config, device: str, workers: Workers
) -> list[list[float]]:
    """CLS: log P(label | text) of every label by BERT's head "classes", a row a text, in the order of their numbers

    Source:  Devlin et al. 2019 sec. 4.1; documents 000 sec. 4.2.
    """

    def one(piece: Piece) -> list[tuple[int, list[float]]]:
        numbers, host = piece
        batch = map_leaves(lambda x: to_device(x, device), host)
        h, _ = bert.encode(p, **batch, config=config, dropout_mask=None)
        logits, _ = bert.class_logits(h, p, dropout_mask=None, rate=0.0)
        return list(zip(numbers, to_host(log_softmax(logits)[0]).tolist(), strict=True))

    rows = dict(chain.from_iterable(workers.map(one, pieces)))
    return [rows[number] for number in range(len(rows))]


def mean_of_probabilities(log_probabilities: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """ENS: log P(label | text) = log 1/M Σ_m P_m(label | text), of the rows that each of M classifiers gives

    Source:  Breiman 1996 (bagging) sec. 4 for the average; documents 000 sec. 4.4.
    """
    M = len(log_probabilities)
    return [
        [log_sum_exp(column) - math.log(M) for column in zip(*members, strict=True)]
        for members in zip(*log_probabilities, strict=True)
    ]


def log_sum_exp(row: Sequence[float]) -> float:
    """log Σ exp x_i, without leaving the numbers where the x_i are far below 0"""
    top = max(row)
    return top + math.log(math.fsum(math.exp(x - top) for x in row))


def most_probable(row: Sequence[float]) -> int:
    """The place of the largest; the first of equal ones."""
    return max(range(len(row)), key=row.__getitem__)


def sentence_labels(
    p: Tree,
    text: str,
    *,
    labels: Sequence[str],
    examples: Sequence[tuple[str, str]],
    prompt: str,
    model: Any,
    config: Any,
    tokenizer: Any,
    device: str,
) -> tuple[list[float], int]:
    """CHAIN: log P(label | prompt) = Σ_t log P(y_t | prompt, y_<t),   y the label and what follows it in the prompt

    With `examples`, texts with their labels, the prompt shows these first (few-shot), else the text alone (zero-shot).
    What follows the label, the end of the line, says that the label ends there. The labels' probabilities do not add
    up to one, since the model may go on otherwise. A prompt longer than the context loses its beginning: beside the
    logarithms stands how many tokens it lost.
    Source:  Brown et al. 2020 (arXiv:2005.14165) sec. 2 and 2.4; documents 002 sec. 4.2 for the chain rule.
    Raises:  UserError for a prompt without {text} before {label}, and for a label that the context cannot hold.
    """
    before, after = _around_label(prompt)
    shown = "".join(_filled(prompt, one, label) for one, label in examples)
    given = tokenizer.encode(shown + _filled(before.rstrip(), text, ""))
    space = before[len(before.rstrip()) :]  # a tokenizer that knows words knows them with the space before
    answers = [tokenizer.encode(space + label + after) for label in labels]
    longest = max(map(len, answers))
    if longest > config.context:
        raise UserError(f"a label has {longest} tokens, more than the context of {config.context}; give shorter labels")
    read = given[-(config.context + 1 - longest) :]
    ids, targets = continued(read, answers, ignore=-1)
    logits, _ = model.forward(p, ids=to_device(ids, device), config=config, dropout_mask=None, cache=None)
    nll, _ = cross_entropy(logits, targets=to_device(targets, device), ignore=-1, reduction="none")
    return [-math.fsum(row) for row in to_host(nll).tolist()], len(given) - len(read)


def _around_label(prompt: str) -> tuple[str, str]:
    """What stands before {label} and after it."""
    before, found, after = prompt.partition("{label}")
    if not found or "{text}" not in before or "{text}" in after:
        raise UserError(f"a prompt needs {{text}} and then {{label}}, such as {PROMPT!r}; got {prompt!r}")
    return before, after


def _filled(prompt: str, text: str, label: str) -> str:
    """The prompt with both; braces in the text are text."""
    before, _, after = prompt.partition("{label}")
    start, _, between = before.partition("{text}")
    return start + text + between + label + after
