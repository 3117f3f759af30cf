"""What edited text says of the parts of a batch or of an axis: of each, or of one, what is meant of all together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm import spec
from refllm.backend import Array
from refllm.spec import array

OPERATIONS = spec.operations()  # one of which may be taken for another
FEW = 4  # slices of an axis, beyond which nobody treats them apart


def separately(f: Callable[..., Any]) -> Callable[..., Any]:
    """What an operation does to a list, done to each of its arrays alone; what it says of them is said of the list."""
    f = OPERATIONS.get(f.__name__, f)

    def of_each(parts: list[Array], **keywords: Any) -> Any:
        said, _ = f(parts, **keywords)
        return said, [f([x], **keywords)[1][0] for x in parts]

    return of_each


def by_text(f: Callable[..., Any]) -> Callable[..., Any]:
    """The mean of what an operation gives for each text, where it is meant for all together."""
    return _mean_of_texts(f, lambda text: True)


def by_text_with_any(f: Callable[..., Any]) -> Callable[..., Any]:
    """The mean of what an operation gives for each text in which something counts, where it is meant for all."""
    return _mean_of_texts(f, _counts)


def _mean_of_texts(f: Callable[..., Any], asked: Callable[[dict[str, Any]], bool]) -> Callable[..., Any]:
    f = OPERATIONS.get(f.__name__, f)

    def of_texts(x: Array, **keywords: Any) -> Any:
        if len(x.shape) < 3:
            return f(x, **keywords)
        given = [{name: _of_text(y, b) for name, y in keywords.items()} for b in range(len(x))]
        found = [f(x[b], **text) for b, text in enumerate(given)]
        weights = [int(asked(text)) / max(1, sum(map(asked, given))) for text in given]
        values = array.stack([weight * value for weight, (value, _) in zip(weights, found, strict=True)], axis=0)

        def of_texts_back(dy: Array) -> Array:
            return array.stack([back(dy * weight) for weight, (_, back) in zip(weights, found, strict=True)], axis=0)

        return array.total(values), of_texts_back

    return of_texts


def by_chunks(f: Callable[..., Any], size: int, *, alike: bool) -> Callable[..., Any]:
    """The mean of what an operation gives for chunks of so many rows, where it is meant for all: a chunk counts by its
    rows, or all chunks are alike."""
    f = OPERATIONS.get(f.__name__, f)

    def of_chunks(x: Array, **keywords: Any) -> Any:
        rows = x.reshape(-1, x.shape[-1]) if len(x.shape) > 1 else x
        count = len(rows)
        if len(x.shape) < 2 or count <= size or keywords.get("reduction", "mean") != "mean":
            return f(x, **keywords)
        parts = [slice(n, min(n + size, count)) for n in range(0, count, size)]
        flat = {
            k: v.reshape(-1) if isinstance(v, numpy.ndarray) and v.size == count else v for k, v in keywords.items()
        }
        given = [{k: v[part] if isinstance(v, numpy.ndarray) else v for k, v in flat.items()} for part in parts]
        found = [f(rows[part], **each) for part, each in zip(parts, given, strict=True)]
        weights = [1 / len(parts) if alike else (part.stop - part.start) / count for part in parts]
        values = array.stack([weight * value for weight, (value, _) in zip(weights, found, strict=True)], axis=0)

        def of_chunks_back(dy: Array) -> Array:
            shares = [back(dy * weight) for weight, (_, back) in zip(weights, found, strict=True)]
            return array.concatenate(shares, axis=0).reshape(x.shape)

        return array.total(values), of_chunks_back

    return of_chunks


def _counts(text: dict[str, Any]) -> bool:
    """Whether a text has a place that counts: a target that is not ignored, a token that is there."""
    targets, ignore, mask = text.get("targets"), text.get("ignore"), text.get("token_mask")
    has_target = targets is None or ignore is None or bool((targets != ignore).any())
    return has_target and (mask is None or bool(mask.any()))


def _of_rows(x: Any, part: slice) -> Any:
    return x[part] if isinstance(x, numpy.ndarray) else x


def _of_text(x: Any, b: int) -> Any:
    return x[b] if isinstance(x, numpy.ndarray) else x


def first_text(x: Array) -> Array:
    """The first text of a batch, and zeros for the others."""
    return _one_text(x, 0)


def last_text(x: Array) -> Array:
    """The last text of a batch, and zeros for the others."""
    return _one_text(x, len(x) - 1)


def mean_text(x: Array) -> Array:
    """x as a share of the texts of a batch."""
    return x if len(x.shape) < 3 else x / max(1, len(x))


def of_heads_first(mask: Array | None, heads: int) -> Array | None:
    """The mask of each text as often as there are heads, for scores that begin with the texts of the first head."""
    return _reordered(mask, heads, lambda text, head, texts: (head * texts + text) // heads)


def of_texts_first(mask: Array | None, heads: int) -> Array | None:
    """The masks of all texts once for each head, for scores that begin with the heads of the first text."""
    return _reordered(mask, heads, lambda text, head, texts: (text * heads + head) % texts)


def _reordered(mask: Array | None, heads: int, which: Callable[[Array, Array, int], Array]) -> Array | None:
    if mask is None or mask.ndim != 4 or mask.shape[1] != 1:
        return mask
    texts = len(mask)
    return mask[:, 0][which(numpy.arange(texts)[:, None], numpy.arange(heads), texts)]


def _one_text(x: Array, which: int) -> Array:
    chosen = numpy.arange(len(x)) == which
    return x if len(x.shape) < 3 else array.where(chosen.reshape(-1, *(1 for _ in x.shape[1:])), x, 0)


def in_slice(mask: Array, x: Array, axis: int, place: int) -> Array:
    """The mask in one slice of an axis, and true in the others."""
    size = x.shape[axis]
    if not 2 <= size <= FEW:
        raise ValueError(f"nobody writes {size} slices apart")
    others = numpy.arange(size) != place
    return mask | others.reshape(size, *(1 for _ in range(-axis - 1)))


WORDS: dict[str, Any] = {
    "by_chunks": by_chunks,
    "by_text": by_text,
    "by_text_with_any": by_text_with_any,
    "first_text": first_text,
    "in_slice": in_slice,
    "last_text": last_text,
    "mean_text": mean_text,
    "of_heads_first": of_heads_first,
    "of_texts_first": of_texts_first,
    "separately": separately,
}
