"""Beam search: the most probable text, not the chain of most probable tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from refllm.backend import Array, namespace
from refllm.differentiable import declared_kinds
from refllm.errors import UserError
from refllm.generation.writer import Writer, require_step
from refllm.kinds import OneOf
from refllm.ops.softmax import log_softmax

Stop: TypeAlias = Annotated[str, OneOf(("bound", "estimate", "filled"))]


@dataclass(frozen=True)
class Hypothesis:
    """A text that ended: its tokens, the end token with them, log P, and the score by which texts are compared."""

    tokens: tuple[int, ...]
    log_probability: float
    score: float


@declared_kinds
def beam_search(
    writer: Writer,
    *,
    ids: Array,
    new_tokens: int,
    end: int | None,
    beams: int,
    length_penalty: float,
    stop: Stop = "bound",
) -> list[list[Hypothesis]]:
    """GEN: the best texts that follow each row of `ids` (B, T), at most `beams`, the best first

        score = log P(text) / length^α,   α = length_penalty, the length with the end token

    A step looks at the 2 · beams most probable continuations of a row's texts. Those that end, if they are among the
    first `beams`, are finished; the first `beams` others go on. A row is done when it has `beams` finished texts and no
    other can come to a better score than the worst of them: log P only falls, so log P / new_tokens^α is a bound. After
    `new_tokens` steps the first `beams` texts are finished as they are. Two more ways to stop are in use: "estimate"
    takes log P / length^α of the texts as they are for the best that they can come to, which is less than a bound where
    α > 0, and "filled" stops at the first `beams` finished texts.
    Source:  documents 002 sec. 3.2; Wu et al. 2016 (arXiv:1609.08144) sec. 7, whose penalty is ((5 + length) / 6)^α
             instead of length^α; Vaswani et al. 2017 (arXiv:1706.03762) sec. 6.1. The ways to stop are those of
             `generate` in transformers: early_stopping "never", False (its default) and True.
    Special: beams = 1 is greedy choice. Of equal scores the text that was better before comes first, then the lower
             token. In float64, whatever the model's dtype.
    Raises:  UserError if beams < 1, α is negative or not finite, or the writer has no room.

    >>> from refllm.generation.writer import CausalWriter
    >>> from refllm.models import gpt
    >>> config = gpt.Config(vocabulary=3, context=8, layers=1, heads=1, width=2, hidden=2)
    >>> p = map_leaves(zeros, gpt.shapes(config))
    >>> writer = CausalWriter(p, model=gpt, config=config, rows=1, room=8, padding=None)
    >>> how = {"ids": array([[0]]), "new_tokens": 2, "end": None, "length_penalty": 0.0}
    >>> [(one.tokens, round(one.score / math.log(3), 12)) for one in beam_search(writer, beams=2, **how)[0]]
    [((0, 0), -2.0), ((0, 1), -2.0)]
    """
    require_step(writer, ids, new_tokens)
    if beams < 1:
        raise UserError(f"beams must be at least 1, got {beams}")
    if not 0 <= length_penalty < math.inf:
        raise UserError(f"the length penalty must be at least 0 and finite, got {length_penalty}")
    searches = [_Search(beams, end, new_tokens, length_penalty, stop) for _ in range(len(ids))]
    log_p = _log_probabilities(writer.logits(ids))  # (B, V), and from then on (B beams, V)
    for step in range(new_tokens):
        rows = len(log_p) // max(1, len(searches))
        copies = [search.step(log_p[i * rows : (i + 1) * rows]) for i, search in enumerate(searches)]
        if all(search.done for search in searches):
            break
        if step == 0:
            writer.expand(beams)  # which copies the only row there was
        else:
            moves = [(i * beams + a, i * beams + b) for i, pairs in enumerate(copies) for a, b in pairs]
            writer.copy_rows([a for a, _ in moves], [b for _, b in moves])
        log_p = _log_probabilities(writer.logits([[token] for search in searches for token in search.last_tokens()]))
    return [search.finished for search in searches]


@dataclass(frozen=True)
class _Text:
    log_p: float
    tokens: tuple[int, ...]


class _Search:
    """The beams of one text to begin with: a place for each, and what has finished."""

    def __init__(self, beams: int, end: int | None, longest: int, length_penalty: float, stop: str) -> None:
        self.stop = stop
        self.beams, self.end, self.longest, self.length_penalty = beams, end, longest, length_penalty
        self.places: list[_Text | None] = [_Text(0.0, ())]
        self.finished: list[Hypothesis] = []
        self.length = 0  # of the texts that go on

    @property
    def done(self) -> bool:
        live = [text.log_p for text in self.places if text is not None]
        if not live:
            return True
        if len(self.finished) < self.beams or self.stop == "filled":
            return len(self.finished) == self.beams
        length = self.longest if self.stop == "bound" else max(1, self.length)
        return self._score(max(live), length) <= self.finished[-1].score

    def step(self, log_p: Array) -> list[tuple[int, int]]:
        """Takes the log probabilities (places, V) of the next token; the copies (from, to) among the places."""
        if self.done:
            self.places = [None] * self.beams
            return []
        V = log_p.shape[1]
        before = [-math.inf if text is None else text.log_p for text in self.places]
        total = log_p + namespace(log_p).asarray(before)[:, None]
        going: list[tuple[int, _Text]] = []
        for rank, i in enumerate(_largest(total.reshape(-1), 2 * self.beams)):
            place, token = divmod(i, V)
            parent = self.places[place]
            if parent is None or total[place, token] == -math.inf:
                continue
            text = _Text(float(total[place, token]), (*parent.tokens, token))
            if token == self.end or len(text.tokens) == self.longest:
                if rank < self.beams:
                    score = self._score(text.log_p, len(text.tokens))
                    self.finished.append(Hypothesis(text.tokens, text.log_p, score))
            elif len(going) < self.beams:
                going.append((place, text))
        self.length += 1
        self.finished = sorted(self.finished, key=lambda text: -text.score)[: self.beams]
        return self._settle(going)

    def _settle(self, going: list[tuple[int, _Text]]) -> list[tuple[int, int]]:
        """The best continuation of a text takes its place, and what the cache holds there stays. Every further one
        takes the place of a text that has no continuation, so a copy is made only where one is needed."""
        self.places = [None] * self.beams
        further = []
        for place, text in going:
            if self.places[place] is None:
                self.places[place] = text
            else:
                further.append((place, text))
        free = (place for place, text in enumerate(list(self.places)) if text is None)
        copies = []
        for (source, text), target in zip(further, free, strict=False):
            self.places[target] = text
            copies.append((source, target))
        return copies

    def last_tokens(self) -> list[int]:
        """The tokens to embed next; 0 where no text is left."""
        return [0 if text is None else text.tokens[-1] for text in self.places]

    def _score(self, log_p: float, length: int) -> float:
        return log_p / length**self.length_penalty


def _log_probabilities(logits: Array) -> Array:
    return log_softmax(logits.astype("float64"))[0]


def _largest(x: Array, n: int) -> Iterable[int]:
    """The places of the n largest entries, descending; of equal ones the first comes first."""
    xp, n = namespace(x), min(n, x.size)
    candidates = xp.flatnonzero(x >= xp.partition(x, x.size - n)[x.size - n])
    order: list[int] = candidates[xp.argsort(-x[candidates], kind="stable")][:n].tolist()
    return order
