"""Documents whose borders are read wrongly are named with how, and on which side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.kernels.segments import RULES
from spec_tests.verify.kernels.noted import Noted

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


def document(borders: Array, n: int, side: Literal["left", "right"] = "right") -> Array:
    found = numpy.searchsorted(borders, numpy.arange(n), side=side) - 1
    return numpy.where(numpy.arange(n) < borders[-1], numpy.maximum(found, 0), -1)


def seen(of_query: Array, of_key: Array, borders: Array, key_borders: Array, causal: bool) -> Array:
    """Who sees whom, a causal query up to the key that the right borders say."""
    t, s = numpy.arange(len(of_query))[:, None], numpy.arange(len(of_key))
    found: Array = (of_query[:, None] == of_key) & (of_query >= 0)[:, None]
    if causal:
        n = numpy.maximum(of_query, 0)[:, None]
        found &= s <= t - borders[n + 1] + key_borders[n + 1]
    return found


def packed(mask: Callable[..., Array]) -> Callable[..., Any]:
    def attention(q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool) -> Any:
        allowed = mask(borders, key_borders, q.shape[-2], k.shape[-2], causal)
        return TEXT["attention"](q, k, v, causal=False, allowed=allowed)

    return attention


@wrong("packed_attention", "in which the first of the keys of a document belongs to the one before")
def keys_by_the_left_border(q: Array, k: Array, v: Array, **how: Any) -> Any:
    return packed(lambda b, kb, T, S, causal: seen(document(b, T), document(kb, S, "left"), b, kb, causal))(
        q, k, v, **how
    )


@wrong("packed_attention", "in which the last two documents are one for the queries and keys")
def last_documents_merged(q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool) -> Any:
    if len(borders) > 2:
        borders, key_borders = numpy.delete(borders, -2), numpy.delete(key_borders, -2)
    return TEXT["packed_attention"](q, k, v, borders=borders, key_borders=key_borders, causal=causal)


@wrong("packed_attention", "in which a document's queries and keys begin at a tile of 16, before its border")
def documents_from_their_tiles(
    q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool
) -> Any:
    moved = [numpy.concatenate([b[:1], b[1:-1] // 16 * 16, b[-1:]]) for b in (borders, key_borders)]
    return TEXT["packed_attention"](q, k, v, borders=moved[0], key_borders=moved[1], causal=causal)


@wrong("packed_attention", "in which a document has its queries and keys without the last one, in the gradient alone")
def gradient_without_the_last(q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool) -> Any:
    how = {"borders": borders, "key_borders": key_borders}
    ends = {n: numpy.concatenate([b[:1], b[1:] - 1]) for n, b in how.items()}
    y, _ = TEXT["packed_attention"](q, k, v, **how, causal=causal)
    mask = numpy.zeros((q.shape[-2], k.shape[-2]), bool)
    for n in range(len(borders) - 1):
        rows, keys = (slice(b[n], max(b[n], ends[name][n + 1])) for name, b in how.items())
        shape = rows.stop - rows.start, keys.stop - keys.start
        more = (ends["key_borders"][n + 1] - key_borders[n]) - (ends["borders"][n + 1] - borders[n])
        mask[rows, keys] = numpy.tri(*shape, more, dtype=bool) if causal else True
    return y, TEXT["attention"](q, k, v, causal=False, allowed=mask)[1]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", KERNELS)
def test_a_border_that_is_read_wrongly_is_named(name: str) -> None:
    KERNELS.is_named_first(name)


@pytest.mark.parametrize(("id", "rule"), [(id, rule) for id, _, rule in RULES])
def test_each_rule_gives_places_that_are_there_and_changes_some(id: str, rule: Callable[[Array, int], Any]) -> None:
    changed = 0
    for borders in ([0, 3, 11, 40], [0, 33, 35, 38, 39], [0, 17, 90], [0, 40, 44, 130, 207]):
        n = borders[-1] + 3
        found = rule(numpy.array(borders), n)
        begins, ends = found if isinstance(found, tuple) else (found[:-1], found[1:])
        assert (begins >= 0).all()
        assert (ends <= n).all()
        changed += not (numpy.array_equal(begins, borders[:-1]) and numpy.array_equal(ends, borders[1:]))
    assert changed, id
