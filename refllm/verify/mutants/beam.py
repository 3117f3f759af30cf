"""Mistakes of beam search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy

from refllm.backend import Array
from refllm.generation.cache import KeyValueCache
from refllm.models import by_name
from refllm.ops.softmax import log_softmax
from refllm.parameters import Tree
from refllm.verify.families import writing
from refllm.verify.mutants.bank import Function, Mutant


class Text(NamedTuple):
    tokens: tuple[int, ...]
    log_p: tuple[float, ...]

    @property
    def sum(self) -> float:
        return sum(self.log_p)


Score = Callable[[Text, float, int | None], float]


def _customary(text: Text, penalty: float, end: int | None) -> float:
    return text.sum / len(text.tokens) ** penalty


def _every(rows: list[tuple[Text, Array]], rank: Callable[[Text], float]) -> list[Text]:
    """All continuations, the best first."""
    found = [Text((*text.tokens, token), (*text.log_p, float(x))) for text, row in rows for token, x in enumerate(row)]
    return sorted(found, key=lambda text: -rank(text))


def _own_best(rows: list[tuple[Text, Array]], rank: Callable[[Text], float]) -> list[Text]:
    """After the first step the best continuation of each text alone."""
    if len(rows) == 1:
        return _every(rows, rank)
    return sorted((_every([row], rank)[0] for row in rows), key=lambda text: -rank(text))


def searched(
    *,
    score: Score = _customary,
    rank: Callable[[Text], float] = lambda text: text.sum,
    continuations: Callable[..., list[Text]] = _every,
    looks: int = 2,
    finishes: Callable[[int], int] = lambda beams: beams,
    end_as: Callable[[int | None], int | None] = lambda end: end,
    goes_on: bool = False,
    enough: Callable[[int], int] = lambda beams: beams,
    bounded: bool = True,
    prompted: bool = False,
    order: Callable[[list[Text], Callable[[Text], float]], list[Text]] = lambda found, key: sorted(found, key=key),
) -> Function:
    """Beam search with a part exchanged, from scratch at every step."""

    def changed(
        p: Tree, *, model: str, ids: Array, source: Array | None, attention_mask: Array | None, end: int | None,
        new_tokens: int, beams: int, length_penalty: float, config: Tree,
    ) -> tuple[Array, Array]:  # fmt: skip
        end = end_as(end)

        prompt = (0,) * (ids.shape[-1] if prompted else 0)

        def value(text: Text) -> float:
            return score(Text(prompt + text.tokens, text.log_p), length_penalty, end)

        def ended(text: Text) -> bool:
            return text.tokens[-1] == end or len(text.tokens) == new_tokens

        def search(after: Function) -> list[Text]:
            going, finished = [Text((), ())], list[Text]()
            while going:
                every = continuations([(text, after(text.tokens)) for text in going], rank)
                finished += [text for text in every[: finishes(beams)] if ended(text)]
                among = every[: looks * beams]
                going = [text for text in among if not ended(text) or (goes_on and len(text.tokens) < new_tokens)]
                going = going[:beams]
                finished.sort(key=lambda text: -value(text))
                if len(finished) >= enough(beams) and going:
                    best = score(Text(going[0].tokens + (0,) * (new_tokens - len(going[0].tokens)),
                                      going[0].log_p), length_penalty, None)  # fmt: skip
                    if not bounded or best <= value(finished[enough(beams) - 1]):
                        break
            return order([*finished, *going], lambda text: -value(text))[:beams]

        texts = [search(after) for after in _afters(p, model, ids, source, attention_mask, config)]
        padded = numpy.stack([writing._padded([text.tokens for text in row], new_tokens) for row in texts])
        return padded, numpy.array([[value(text) for text in row] for row in texts]).astype(p["token"].dtype)

    return changed


def _afters(
    p: Tree, model: str, ids: Array, source: Array | None, attention_mask: Array | None, config: Tree
) -> Iterator[Function]:
    """For every row what comes after some tokens: the log probabilities (V,), in float64."""
    own: Any = by_name(model)
    how: dict[str, Any] = {"config": own.Config(**config), "dropout_mask": None}
    for b, prompt in enumerate(ids):
        if source is None:
            texts: dict[str, Any] = {"cache": None}
        else:
            texts = {
                "source": source[b : b + 1],
                "attention_mask": None if attention_mask is None else attention_mask[b : b + 1],
            }

        def after(tokens: tuple[int, ...], prompt: Array = prompt, texts: dict[str, Any] = texts) -> Array:
            y, _ = own.forward(p, ids=numpy.array([[*prompt.tolist(), *tokens]]), **texts, **how)
            return log_softmax(y[0, -1].astype("float64"))[0]

        yield after


def _of_wu(text: Text, penalty: float, end: int | None) -> float:
    return text.sum / ((5 + len(text.tokens)) / 6) ** penalty


def _without_end(text: Text, penalty: float, end: int | None) -> float:
    ended = end is not None and text.tokens[-1] == end
    return text.sum / max(1, len(text.tokens) - ended) ** penalty


def _not_moved(self: KeyValueCache, sources: Any, targets: Any) -> None:
    """The texts move and what the cache holds of them does not."""


_search = writing.beam_search
# fmt: off
MUTANTS = [
    Mutant("GEN/beam-no-length-penalty", _search, "beam search without a length penalty",
           searched(score=lambda text, penalty, end: text.sum)),
    Mutant("GEN/beam-length-mean", _search, "beam search by the mean of the log probabilities, whatever the penalty",
           searched(score=lambda text, penalty, end: text.sum / len(text.tokens))),
    Mutant("GEN/beam-penalty-of-wu", _search, "beam search with the penalty ((5 + length) / 6)^α",
           searched(score=_of_wu)),
    Mutant("GEN/beam-penalty-inverse", _search, "beam search that multiplies by the length penalty",
           searched(score=lambda text, penalty, end: text.sum * len(text.tokens) ** penalty)),
    Mutant("GEN/beam-length-without-end", _search, "beam search that does not count the end token in the length",
           searched(score=_without_end)),
    Mutant("GEN/beam-length-with-prompt", _search, "beam search that counts the prompt in the length",
           searched(prompted=True), "https://github.com/huggingface/transformers/issues/26624"),
    Mutant("GEN/beam-end-ignored", _search, "beam search that never ends a text", searched(end_as=lambda end: None)),
    Mutant("GEN/beam-finished-go-on", _search, "beam search that goes on with texts that have ended",
           searched(goes_on=True), "https://github.com/facebookresearch/ParlAI/issues/2058"),
    Mutant("GEN/beam-last-word", _search, "beam search by the probability of the last word, not of the text",
           searched(rank=lambda text: text.log_p[-1])),
    Mutant("GEN/beam-own-best", _search, "beam search whose texts each go on with their own best word",
           searched(continuations=_own_best)),
    Mutant("GEN/beam-narrow", _search, "beam search whose texts that end leave a place empty", searched(looks=1)),
    Mutant("GEN/beam-finishes-any", _search, "beam search that finishes texts beyond the first `beams` too",
           searched(finishes=lambda beams: 2 * beams)),
    Mutant("GEN/beam-stops-early", _search, "beam search that stops at as many ended texts as beams, though a better "
           "one may come", searched(bounded=False)),
    Mutant("GEN/beam-stops-at-one", _search, "beam search that stops at the first text that ends",
           searched(enough=lambda beams: 1, bounded=False)),
    Mutant("GEN/beam-unsorted", _search, "beam search with the least of its texts first",
           searched(order=lambda found, key: sorted(sorted(found, key=key)[:3], key=lambda text: -key(text)))),
    Mutant("GEN/beam-cache-not-moved", KeyValueCache.copy_rows, "beam search that moves its texts and not what "
           "their cache holds", _not_moved),
]
