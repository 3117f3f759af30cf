"""How a text is corrupted for a model to restore it: masked, deleted and infilled tokens, spans, gap sentences. (DAE)

What is done to a text is a function of its ids and of the draws; the `draw_...` functions make the draws, and a test
may give others. Every corruption returns the source that the model reads and the target that it writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refllm.data.padding import padded
from refllm.errors import UserError

Ids = NDArray[np.integer[Any]]
Places = NDArray[np.bool_]  # of a text (T,), or of its sentences
Spans = NDArray[np.int64]  # (n, 2): start and length of each, ascending and without overlap
Pair = tuple[Ids, Ids]  # source, target


def draw_places(length: int, *, share: float, generator: np.random.Generator) -> Places:
    """Which places of a text are corrupted: the share of them, rounded, but at least one.

    Raises:  UserError if the text is empty, or the share is not above 0 and at most 1.
    """
    chosen = np.zeros(length, bool)
    chosen[generator.permutation(length)[: _count(length, share)]] = True
    return chosen


def draw_infilling(length: int, *, share: float, mean: float, generator: np.random.Generator) -> Spans:
    """Spans with Poisson lengths of that mean until they hold the share of the text; the last is cut to fit. A length
    of 0 puts a mask between two tokens. Every arrangement of the spans among the other tokens is as probable.

    Source:  Lewis et al. 2020 (arXiv:1910.13461) sec. 2.2: a mean of 3; sec. 5.1: a share of 0.3.
    Raises:  UserError as `draw_places`, and if the mean is not above 0.
    """
    if not mean > 0:
        raise UserError(f"the mean length of the spans must be above 0, such as 3; got {mean}")
    left, lengths = _count(length, share), []
    while left > 0:
        lengths.append(min(int(generator.poisson(mean)), left))
        left -= lengths[-1]
    kept = length - sum(lengths)
    slots = np.sort(generator.choice(kept + len(lengths), len(lengths), replace=False))
    kept_before = slots - np.arange(len(lengths))
    inside_before = np.cumsum(lengths) - lengths
    return np.stack([kept_before + inside_before, lengths], axis=1).astype(np.int64)


def draw_spans(length: int, *, share: float, mean: float, generator: np.random.Generator) -> Spans:
    """Spans of at least one token that hold the share of the text, with that mean length, tokens between any two. The
    text is cut at random into as many kept stretches as spans, which take turns; it begins with a kept one.

    Source:  Raffel et al. 2020 (arXiv:1910.10683) sec. 3.3.4: a share of 0.15, a mean of 3; the arrangement is that of
             the released code.
    Raises:  UserError as `draw_infilling`, and for a text of fewer than two tokens.
    """
    if length < 2:
        raise UserError(f"spans need a text of at least 2 tokens, one of which stays; got {length}")
    if not mean > 0:
        raise UserError(f"the mean length of the spans must be above 0, such as 3; got {mean}")
    corrupted = min(_count(length, share), length - 1)
    spans = max(1, min(round(corrupted / mean), corrupted, length - corrupted))
    inside = _composition(corrupted, spans, generator)
    kept = _composition(length - corrupted, spans, generator)
    return np.stack([np.cumsum(kept) + np.cumsum(inside) - inside, inside], axis=1)


def token_masking(ids: Ids, *, chosen: Places, mask: int) -> Pair:
    """DAE: every chosen token becomes the mask; the target is the text.

    Source:  Lewis et al. 2020 sec. 2.2; documents 002 sec. 3.3.
    """
    return np.where(chosen, mask, ids), ids.copy()


def token_deletion(ids: Ids, *, chosen: Places) -> Pair:
    """DAE: every chosen token is gone, and the model must find where; the target is the text.

    Source:  Lewis et al. 2020 sec. 2.2.
    """
    return ids[~chosen], ids.copy()


def text_infilling(ids: Ids, *, spans: Spans, mask: int) -> Pair:
    """DAE: every span becomes ONE mask, whatever its length; the target is the text.

    Source:  Lewis et al. 2020 sec. 2.2.
    Raises:  ValueError if spans overlap, are not in order, or leave the text.
    """
    kept, _ = _cut(ids, spans)
    return _joined(kept, [[mask]] * len(spans)), ids.copy()


def span_corruption(ids: Ids, *, spans: Spans, sentinels: Sequence[int]) -> Pair:
    """DAE: span i becomes sentinel i; the target is each sentinel with what it stands for, and a last one.

    "Thank you <X> me to your party <Y> week." and "<X> for inviting <Y> last <Z>".
    Source:  Raffel et al. 2020 sec. 2.4 and fig. 2. (The released code has no last sentinel, but the end token.)
    Raises:  UserError if there are not more sentinels than spans; ValueError as `text_infilling`.
    """
    if len(sentinels) <= len(spans):
        raise UserError(
            f"{len(spans)} spans need {len(spans) + 1} sentinels, there are {len(sentinels)}; "
            "give more sentinels, a shorter text, or longer spans"
        )
    kept, taken = _cut(ids, spans)
    marks = [[sentinel] for sentinel in sentinels[: len(spans)]]
    return _joined(kept, marks), _joined([ids[:0], *taken, ids[:0]], [*marks, [sentinels[len(spans)]]])


def gap_sentences(sentences: Sequence[Ids], *, chosen: Places, mask: int) -> Pair:
    """DAE: every chosen sentence becomes the mask; the target is these sentences, one after the other.

    Source:  Zhang et al. 2020 (arXiv:1912.08777) sec. 3.1 (PEGASUS).
    """
    source = [np.array([mask]) if gap else sentence for sentence, gap in zip(sentences, chosen, strict=True)]
    target = [sentence for sentence, gap in zip(sentences, chosen, strict=True) if gap]
    return np.concatenate(source), np.concatenate([sentences[0][:0], *target])


def principal_sentences(sentences: Sequence[Ids], *, count: int) -> Places:
    """The sentences that say most of what the others say: those with the highest ROUGE-1 F1 against all others, each
    judged alone; of equal ones the first.

    F1 = 2 overlap / (tokens of the sentence + tokens of the others), whose denominator is the same for all.
    Source:  Zhang et al. 2020 sec. 3.1 ("Ind-Orig").
    Raises:  UserError unless at least one sentence is chosen and at least one stays.
    """
    if not 1 <= count < len(sentences):
        raise UserError(f"gap sentences: of {len(sentences)} sentences, 1 to {len(sentences) - 1} can go; got {count}")
    counts = [Counter(sentence.tolist()) for sentence in sentences]
    everything = sum(counts, Counter[int]())
    overlap = [(own & (everything - own)).total() for own in counts]
    chosen = np.zeros(len(sentences), bool)
    chosen[np.argsort(-np.array(overlap), kind="stable")[:count]] = True
    return chosen


def denoising_batch(pairs: Sequence[Pair], *, pad: int, counted: Sequence[Places] | None = None) -> dict[str, Any]:
    """Sources and targets as the batch of objectives/denoising.py: source (B, S), attention_mask (B, S), ids (B, T),
    counted (B, T). `counted` says for each target which of its places have a loss; all of them if None.
    """
    sources, targets = zip(*pairs, strict=True)
    source, ids = padded(sources, value=pad), padded(targets, value=pad)
    lengths = (np.array([len(text) for text in texts])[:, None] for texts in (sources, targets))
    attention_mask, inside = (np.arange(rows.shape[1]) < n for rows, n in zip((source, ids), lengths, strict=True))
    if counted is not None:
        for row, places in zip(inside, counted, strict=True):
            row[: len(places)] &= places
    return {"source": source, "attention_mask": attention_mask, "ids": ids, "counted": inside}


def _count(length: int, share: float) -> int:
    if length < 1:
        raise UserError("there is nothing to corrupt in an empty text; leave it out")
    if not 0 < share <= 1:
        raise UserError(f"the share that is corrupted must be above 0 and at most 1, such as 0.15; got {share}")
    return max(1, int(length * share + 0.5))


def _composition(total: int, parts: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """`total` as an ordered sum of `parts` positive numbers, each such sum as probable."""
    cuts = np.sort(generator.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(cuts, prepend=0, append=total)


def _cut(ids: Ids, spans: Spans) -> tuple[list[Ids], list[Ids]]:
    """The stretches before, between and after the spans, one more than there are spans; and the spans."""
    ends = [0, *(spans[:, 0] + spans[:, 1]).tolist()]
    starts = [*spans[:, 0].tolist(), len(ids)]
    if (spans[:, 1] < 0).any() or any(end > start for end, start in zip(ends, starts, strict=True)):
        raise ValueError(
            f"spans must be in order, without overlap and inside a text of {len(ids)}; got {spans.tolist()}"
        )
    kept = [ids[end:start] for end, start in zip(ends, starts, strict=True)]
    return kept, [ids[start:end] for start, end in zip(starts[:-1], ends[1:], strict=True)]


def _joined(stretches: Sequence[Ids], marks: Sequence[Sequence[int]]) -> Ids:
    """Stretches with a mark between each two."""
    pieces: list[Any] = [stretches[0]]
    for mark, stretch in zip(marks, stretches[1:], strict=True):
        pieces += [mark, stretch]
    return np.concatenate(pieces).astype(stretches[0].dtype)
