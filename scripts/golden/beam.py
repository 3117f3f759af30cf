"""GEN: texts that end, written by greedy choice and by beam search, for a model of one text or of source and target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from mpmath import mpf

from golden.encoder_decoder import encoder_decoder
from golden.families import MODELS
from golden.formulas import Array, log_softmax_row
from golden.sampling import greedy
from golden.tape import Node, constant, total
from golden.tree import Tree

Next = Callable[[list[int]], list[Node]]  # the tokens so far -> the logits of the next
NOTHING = -1  # stands where there is no token


def translate(
    p: Tree,
    *,
    source: Array,
    allowed: Array | None,
    start: int,
    end: int | None,
    new_tokens: int,
    cache: bool,
    config: Tree,
) -> dict[str, Any]:
    """The most probable token at every step, from `start` on, until `end`, which is the last, or `new_tokens`. Behind
    the end there is no token (-1) and no logit (0). A cache changes the work and not the answer."""
    del cache
    ids = np.full((len(source), new_tokens), NOTHING, np.int64)
    logits, margins = [], []
    for b, after in enumerate(_of_rows(p, "encoder_decoder", config, source, allowed)):
        tokens, rows = [start], list[list[Node]]()
        while len(rows) < new_tokens and (end is None or tokens[-1] != end or not rows):
            rows.append(after(tokens))
            token, margin = greedy([x.value for x in rows[-1]])
            margins.append(margin)
            tokens.append(token)
        ids[b, : len(rows)] = tokens[1:]
        zeros = [[constant(0)] * config["vocabulary"]] * (new_tokens - len(rows))
        logits.append([*rows, *zeros])
    return {"ids": ids, "logits": np.array(logits, dtype=object), "margin": _scalar(min(margins))}


def _of_rows(p: Tree, model: str, config: Tree, source: Array | None, allowed: Array | None) -> list[Next]:
    """For every source, what comes next; for a model without sources, once."""
    if source is None:
        return [lambda tokens: list(MODELS[model](p, ids=np.array(tokens), config=config)[-1])]

    def of(b: int) -> Next:
        own = None if allowed is None else allowed[b : b + 1]
        how = {"source": source[b : b + 1], "allowed": own, "config": config}
        return lambda tokens: list(encoder_decoder(p, ids=np.array([tokens]), **how)["logits"][0, -1])

    return [of(b) for b in range(len(source))]


@dataclass(frozen=True)
class Text:
    """Tokens behind the prompt, and log P of each."""

    tokens: tuple[int, ...]
    log_p: tuple[Node, ...]

    @property
    def sum(self) -> Any:
        return sum((x.value for x in self.log_p), mpf(0))

    def score(self, penalty: float) -> Any:
        return self.sum / mpf(len(self.tokens)) ** mpf(penalty)


def beam_search(
    p: Tree,
    *,
    model: str,
    ids: Array,
    source: Array | None,
    allowed: Array | None,
    end: int | None,
    new_tokens: int,
    beams: int,
    length_penalty: float,
    config: Tree,
) -> dict[str, Any]:
    """The `beams` best texts behind each row of ids (B, T), by log P(text) / length^penalty (Wu 2016, 7; the length
    with the end token), best first: ids (B, beams, new_tokens), -1 behind the end, and their scores.

    A step looks at the 2 beams most probable continuations. Of the first `beams` of them, those that end, or are
    `new_tokens` long, are finished; the first `beams` that do not end go on. It is over when there are `beams`
    finished texts and no text that goes on could come to a better score, even if all that is still to come had P = 1.
    """
    afters = _of_rows(p, model, config, source, allowed)
    found = np.full((len(ids), beams, new_tokens), NOTHING, np.int64)
    scores, margins = [], []
    for b, prompt in enumerate(ids):
        after = afters[b] if source is not None else afters[0]
        texts, margin = _search(after, list(prompt), end, new_tokens, beams, length_penalty)
        for n, text in enumerate(texts):
            found[b, n, : len(text.tokens)] = text.tokens
        scores.append([total(t.log_p) / constant(mpf(len(t.tokens)) ** mpf(length_penalty)) for t in texts])
        margins.append(margin)
    return {"ids": found, "scores": np.array(scores, dtype=object), "margin": _scalar(min(margins))}


def _search(
    after: Next, prompt: list[int], end: int | None, longest: int, beams: int, penalty: float
) -> tuple[list[Text], Any]:
    def ends(text: Text) -> bool:
        return text.tokens[-1] == end or len(text.tokens) == longest

    going, finished, margins = [Text((), ())], list[Text](), [mpf("inf")]
    while going:
        every = []
        for text in going:
            log_p = log_softmax_row(after([*prompt, *text.tokens]))
            every += [Text((*text.tokens, token), (*text.log_p, x)) for token, x in enumerate(log_p)]
        every.sort(key=lambda text: -text.sum)
        margins += [a.sum - b.sum for a, b in pairwise(every[: 2 * beams + 1])]
        finished += [text for text in every[:beams] if ends(text)]
        finished.sort(key=lambda text: -text.score(penalty))
        going = [text for text in every[: 2 * beams] if not ends(text)][:beams]
        if len(finished) >= beams and going:
            bound, worst = going[0].sum / mpf(longest) ** mpf(penalty), finished[beams - 1].score(penalty)
            margins.append(abs(bound - worst))
            if bound <= worst:
                break
    margins += [a.score(penalty) - b.score(penalty) for a, b in pairwise(finished[: beams + 1])]
    return finished[:beams], min(margins)


def _scalar(x: Any) -> Array:
    return np.asarray(constant(x), dtype=object)
