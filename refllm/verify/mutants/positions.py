"""Mistakes of positions, and of the cache of keys and values that depends on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy

from refllm.backend import Array
from refllm.generation.cache import KeyValueCache, LayerCache
from refllm.ops.position import add_positions, sinusoidal
from refllm.verify.mutants.autodiff import Node, differentiable, elementwise
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.linear import gradients

Omega = Callable[[Array, int], Array]


def _sin(x: Node) -> Node:
    return elementwise(x, numpy.sin(x.value), numpy.cos(x.value))


def _cos(x: Node) -> Node:
    return elementwise(x, numpy.cos(x.value), -numpy.sin(x.value))


def _omega(column: Array, C: int) -> Array:
    """The frequency of a column: both of a pair have that of the even one."""
    return 10000.0 ** (-(column - column % 2) / C)


def wave(
    *, omega: Omega = _omega, phase: Callable[[Array, int], Array] = lambda c, C: c % 2 == 1, shift: float = 0.0
) -> Function:
    """The sinusoidal code with other frequencies, or with the cosine in other columns (`phase` true)."""

    @differentiable
    def changed(p: Node, *, width: int) -> Node:
        column = numpy.arange(width)
        angle = (p + shift).reshape(*p.shape, 1) * omega(column, width)
        cosine = phase(column, width).astype(float)
        return _sin(angle) * (1 - cosine) + _cos(angle) * cosine

    return changed


@differentiable
def _one_number(p: Node, *, width: int) -> Node:
    angle = p.reshape(*p.shape, 1) * (width**-0.5 * numpy.ones(width))
    return _sin(angle) + _cos(angle)


def _single(p: Array, *, width: int) -> tuple[Array, Function]:
    """Angles of float32."""
    omega = _omega(numpy.arange(width), width).astype("float32")
    angle = p.astype("float32")[..., None] * omega
    odd = numpy.arange(width) % 2 == 1
    y = numpy.where(odd, numpy.cos(angle), numpy.sin(angle)).astype(p.dtype)
    slope = (numpy.where(odd, -numpy.sin(angle), numpy.cos(angle)) * omega).astype(p.dtype)
    return y, lambda dy: (dy * slope).sum(axis=-1)


def row(which: Callable[[Array, int], Array], join: Callable[[Node, Node], Node] = lambda x, e: x + e) -> Function:
    """add_positions with another row of the table, or joined to the token in another way."""

    @differentiable
    def changed(x: Node, P: Node, *, positions: Array) -> Node:
        return join(x, P[which(positions, P.shape[0])])

    return changed


def _first_sentence(positions: Array, rows: int) -> Array:
    return numpy.broadcast_to(positions[:1], positions.shape) if positions.ndim > 1 else positions


def _assigned(x: Array, P: Array, *, positions: Array) -> tuple[Array, Function]:
    def back(dy: Array) -> tuple[Array, Array]:
        dP = numpy.zeros_like(P)
        dP[numpy.broadcast_to(positions, x.shape[:-1])] = dy
        return dy.copy(), dP

    return x + P[positions], back


def _averaged(d: tuple[Array, Array], a: tuple[Array, Array], dy: tuple[Array]) -> tuple[Array, Array]:
    """A table's gradient divided by the sentences of the batch."""
    return d[0], d[1] / max(1, a[0][..., 0, 0].size)


_advance = KeyValueCache.advance
_prompts: WeakKeyDictionary[KeyValueCache, int] = WeakKeyDictionary()


def advance(change: Callable[[Array, int], Array]) -> Function:
    """A cache that gives new tokens other positions: change(positions, room)."""

    def changed(self: KeyValueCache, tokens: int) -> tuple[Array, Array | None]:
        positions, attention_mask = _advance(self, tokens)
        return change(positions, self.room), attention_mask

    return changed


def _twice_the_prompt(self: KeyValueCache, tokens: int) -> tuple[Array, Array | None]:
    positions, attention_mask = _advance(self, tokens)
    if self.length == tokens:
        _prompts[self] = tokens
        return positions, attention_mask
    return numpy.minimum(positions + _prompts[self], self.room - 1), attention_mask


def extend(change: Callable[[LayerCache, Array, Array], tuple[Array, Array]]) -> Function:
    """A layer's cache that gives other keys and values: change(cache, k, v)."""

    def changed(self: LayerCache, k: Array, v: Array) -> tuple[Array, Array]:
        return change(self, k, v)

    return changed


_extend = LayerCache.extend


def _shifted_by_one(cache: LayerCache, k: Array, v: Array) -> tuple[Array, Array]:
    """New keys and values one place too early: the last of the past is overwritten."""
    keys, values = _extend(cache, k, v)
    if len(keys[0, 0]) > k.shape[-2]:
        end, start = cache.owner.length, cache.owner.length - k.shape[-2]
        cache.k[:, :, start - 1 : end - 1], cache.v[:, :, start - 1 : end - 1] = k, v
    return keys, values


def _keys_of_the_prompt(cache: LayerCache, k: Array, v: Array) -> tuple[Array, Array]:
    """Values are appended, keys of new tokens are not stored: zeros stand there."""
    first = cache.owner.length == k.shape[-2]
    return _extend(cache, k if first else numpy.zeros_like(k), v)


def _newest_first(cache: LayerCache, k: Array, v: Array) -> tuple[Array, Array]:
    """New keys are put behind the past, new values before it."""
    keys, values = _extend(cache, k, v)
    n = k.shape[-2]
    return keys, numpy.concatenate([values[:, :, -n:], values[:, :, :-n]], axis=2)


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Mutant("PE-SIN/from-one", sinusoidal, "sinusoidal positions counted from 1", wave(shift=1.0)),
    Mutant("PE-SIN/sin-cos-swapped", sinusoidal, "sinusoidal positions with sine and cosine swapped",
           wave(phase=lambda c, C: c % 2 == 0)),
    Mutant("PE-SIN/halves", sinusoidal, "sinusoidal positions with all sines first, then all cosines",
           wave(omega=lambda c, C: 10000.0 ** (-2 * (c % ((C + 1) // 2)) / C), phase=lambda c, C: c >= (C + 1) // 2)),
    Mutant("PE-SIN/own-exponents", sinusoidal, "sinusoidal positions with the exponent i/d of every column: the cosine "
           "of a pair has another frequency than its sine", wave(omega=lambda c, C: 10000.0 ** (-c / C)),
           G + "maxjcohen/transformer/issues/62"),
    Mutant("PE-SIN/doubled-columns", sinusoidal,
           "sinusoidal positions with the exponent 2i/d of the column i, not the pair",
           wave(omega=lambda c, C: 10000.0 ** (-2 * c / C)),
           G + "jadore801120/attention-is-all-you-need-pytorch/issues/32"),
    Mutant("PE-SIN/pair-exponent", sinusoidal, "sinusoidal positions with the exponent i/d of the pair instead of 2i/d",
           wave(omega=lambda c, C: 10000.0 ** (-(c // 2) / C))),
    Mutant("PE-SIN/base-1000", sinusoidal, "sinusoidal positions with the base 1000 instead of 10000",
           wave(omega=lambda c, C: 1000.0 ** (-(c - c % 2) / C)), G + "maxjcohen/transformer/issues/62"),
    Mutant("PE-SIN/last-frequency", sinusoidal, "sinusoidal positions whose last pair has the frequency 1/10000, by "
           "d/2 - 1 in the exponent", wave(omega=lambda c, C: 10000.0 ** (-(c // 2) / max(1, C / 2 - 1)))),
    Mutant("PE-SIN/integer-division", sinusoidal, "sinusoidal positions with the exponent cut to a whole number: one "
           "frequency", wave(omega=lambda c, C: 1.0 + 0 * c)),
    Mutant("PE-SIN/inverse-frequency", sinusoidal, "sinusoidal positions multiplied by 10000^(2i/d) instead of divided",
           wave(omega=lambda c, C: 1 / _omega(c, C))),
    Mutant("PE-SIN/power-turned", sinusoidal, "sinusoidal positions with the frequency (2i/d)^(1/10000)",
           wave(omega=lambda c, C: ((c - c % 2) / C) ** 1e-4), G + "ivanvovk/WaveGrad/issues/12"),
    Mutant("PE-SIN/sines-alone", sinusoidal, "sinusoidal positions with sines in every column",
           wave(phase=lambda c, C: c < 0)),
    Mutant("PE-SIN/one-number", sinusoidal, "sinusoidal positions by sin(p/√d) + cos(p/√d), one number for all "
           "dimensions (E5)", _one_number),
    Mutant("PE-SIN/single-precision", sinusoidal, "sinusoidal positions with angles in float32", _single),
    Mutant("PE-SIN/degrees", sinusoidal, "sinusoidal positions with angles taken for degrees",
           wave(omega=lambda c, C: _omega(c, C) * math.pi / 180)),
    Mutant("PE-LRN/none", add_positions, "add_positions that adds nothing",
           row(lambda i, S: i, lambda x, e: x + 0 * e)),
    Mutant("PE-LRN/from-one", add_positions, "add_positions with the row after the position's: counted from 1",
           row(lambda i, S: (i + 1) % S)),
    Mutant("PE-LRN/restart", add_positions, "add_positions that begins with row 0 whatever the positions are: the "
           "past in the cache is forgotten", row(lambda i, S: numpy.broadcast_to(numpy.arange(i.shape[-1]), i.shape))),
    Mutant("PE-LRN/one-for-all", add_positions, "add_positions that gives every sentence the positions of the first",
           row(_first_sentence)),
    Mutant("PE-LRN/reversed", add_positions, "add_positions with the table read from its end",
           row(lambda i, S: S - 1 - i)),
    Mutant("PE-LRN/twice", add_positions, "add_positions that adds the row twice",
           row(lambda i, S: i, lambda x, e: x + 2 * e)),
    Mutant("PE-LRN/multiplied", add_positions, "add_positions that multiplies by the row",
           row(lambda i, S: i, lambda x, e: x * e)),
    Mutant("PE-LRN/replaced", add_positions, "add_positions that returns the row without the token",
           row(lambda i, S: i, lambda x, e: 0 * x + e)),
    Mutant("PE-LRN/root-width", add_positions, "add_positions after the token was multiplied by √C",
           row(lambda i, S: i, lambda x, e: x * x.shape[-1] ** 0.5 + e)),
    Mutant("PE-LRN/back-assigned", add_positions, "add_positions whose table's gradient is assigned, not added: the "
           "last sentence alone counts", _assigned),
    Mutant("PE-LRN/back-averaged", add_positions, "add_positions whose table's gradient is averaged over the sentences",
           gradients(add_positions, _averaged)),
    Mutant("PE-LRN/back-frozen", add_positions, "add_positions with no gradient for the table",
           gradients(add_positions, lambda d, a, dy: (d[0], 0 * d[1]))),
    Mutant("GEN/cache-position-restart", KeyValueCache.advance, "a cache whose new tokens stand at position 0 again",
           advance(lambda i, room: i - i[..., :1])),
    Mutant("GEN/cache-position-late", KeyValueCache.advance, "a cache whose new tokens stand one position too far",
           advance(lambda i, room: numpy.where(i[..., :1] > 0, numpy.minimum(i + 1, room - 1), i))),
    Mutant("GEN/cache-position-early", KeyValueCache.advance, "a cache whose new tokens stand one position too early",
           advance(lambda i, room: numpy.where(i[..., :1] > 0, i - 1, i))),
    Mutant("GEN/cache-position-prompt", KeyValueCache.advance, "a cache whose offset counts the prompt twice",
           _twice_the_prompt, G + "skyzh/tiny-llm/pull/46"),
    Mutant("GEN/cache-stale", LayerCache.extend, "a cache that gives the new keys and values alone: the past is lost",
           extend(lambda cache, k, v: (k, v)), G + "alex-hh/profam/pull/168"),
    Mutant("GEN/cache-overwrites", LayerCache.extend, "a cache that writes one place too early, over the newest past",
           extend(_shifted_by_one)),
    Mutant("GEN/cache-keys-missing", LayerCache.extend, "a cache that stores no keys of new tokens",
           extend(_keys_of_the_prompt)),
    Mutant("GEN/cache-values-first", LayerCache.extend, "a cache that puts new values before the past, keys behind it",
           extend(_newest_first)),
]
