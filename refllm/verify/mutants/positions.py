"""Mistakes of positions, and of the cache of keys and values that depends on them."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy

from refllm.backend import Array
from refllm.generation.cache import KeyValueCache, LayerCache
from refllm.spec.position import add_positions, sinusoidal
from refllm.verify.mutants.bank import Edited, Edits, Function, Patch, edit

WAVELENGTHS, ANGLES = (
    "wavelengths = power(10000, ratio(arange(0, width, 2), width))",
    "angles = p[..., None] / wavelengths",
)
WAVES = "return waves(sin(angles), cos(angles)), sinusoidal_back"
NARROW = ("float32", "tf32", "float16", "bfloat16")  # p itself is rounded there, and the angle with it
ROW_BACK = "return dy, scatter_add(spread(positions, dy.shape[:-1]), dy, len(P))"


def lengths(new: str) -> Edits:
    return edit(sinusoidal, WAVELENGTHS, f"wavelengths = {new}")


def waves(new: str) -> Edits:
    return edit(sinusoidal, WAVES, f"return {new}, sinusoidal_back")


def placed(new: str) -> Edits:
    return edit(add_positions, "return x + P[positions], add_positions_back", f"return {new}, add_positions_back")


_advance = KeyValueCache.advance
_prompts: WeakKeyDictionary[KeyValueCache, int] = WeakKeyDictionary()


def advance(change: Callable[[Array, int], Array]) -> Function:
    """A cache that gives new tokens other positions: change(positions, room)."""

    def changed(self: KeyValueCache, tokens: int) -> tuple[Array, Array | None]:
        positions, allowed = _advance(self, tokens)
        return change(positions, self.room), allowed

    return changed


def _twice_the_prompt(self: KeyValueCache, tokens: int) -> tuple[Array, Array | None]:
    positions, allowed = _advance(self, tokens)
    if self.length == tokens:
        _prompts[self] = tokens
        return positions, allowed
    return numpy.minimum(positions + _prompts[self], self.room - 1), allowed


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
    Edited("PE-SIN/from-one", "sinusoidal positions counted from 1",
           edit(sinusoidal, ANGLES, "angles = (p[..., None] + 1) / wavelengths")),
    Edited("PE-SIN/sin-cos-swapped", "sinusoidal positions with sine and cosine swapped",
           waves("waves(cos(angles), sin(angles))")),
    Edited("PE-SIN/halves", "sinusoidal positions with all sines first, then all cosines",
           waves("like(concatenate([sin(angles), cos(angles)], axis=-1)[..., :width], p)")),
    Edited("PE-SIN/own-exponents", "sinusoidal positions with the exponent i/d of every column: the cosine of a "
           "pair has "
           "another frequency than its sine", waves("waves(sin(angles), cos(angles / power(10000, ratio(1, width))))"),
           G + "maxjcohen/transformer/issues/62"),
    Edited("PE-SIN/doubled-columns", "sinusoidal positions with the exponent 2i/d of the column i, not the pair",
           edit(sinusoidal, WAVELENGTHS, "wavelengths = power(10000, ratio(2 * arange(0, width, 2), width))",
                WAVES, "return waves(sin(angles), cos(angles / power(10000, ratio(2, width)))), sinusoidal_back"),
           G + "jadore801120/attention-is-all-you-need-pytorch/issues/32"),
    Edited("PE-SIN/pair-exponent", "sinusoidal positions with the exponent i/d of the pair instead of 2i/d",
           lengths("power(10000, ratio(arange(0, width, 2) / 2, width))")),
    Edited("PE-SIN/base-1000", "sinusoidal positions with the base 1000 instead of 10000",
           lengths("power(1000, ratio(arange(0, width, 2), width))"), G + "maxjcohen/transformer/issues/62"),
    Edited("PE-SIN/last-frequency", "sinusoidal positions whose last pair has the frequency 1/10000, by d/2 - 1 in the "
           "exponent", lengths("power(10000, ratio(arange(0, width, 2) / 2, max(1, width / 2 - 1)))")),
    Edited("PE-SIN/integer-division", "sinusoidal positions with the exponent cut to a whole number: one frequency",
           lengths("power(10000, arange(0, width, 2) // width)")),
    Edited("PE-SIN/inverse-frequency", "sinusoidal positions multiplied by 10000^(2i/d) instead of divided",
           edit(sinusoidal, ANGLES, "angles = p[..., None] * wavelengths")),
    Edited("PE-SIN/power-turned", "sinusoidal positions with the frequency (2i/d)^(1/10000)",
           edit(sinusoidal, ANGLES, "angles = p[..., None] * power(ratio(arange(0, width, 2), width), 1 / 10000)"),
           G + "ivanvovk/WaveGrad/issues/12"),
    Edited("PE-SIN/sines-alone", "sinusoidal positions with sines in every column",
           waves("waves(sin(angles), sin(angles))")),
    Edited("PE-SIN/one-number", "sinusoidal positions by sin(p/√d) + cos(p/√d), one number for all dimensions (E5)",
           edit(sinusoidal, ANGLES, "angles = p[..., None] / sqrt(width)",
                WAVES, "return spread(sin(angles) + cos(angles), (*p.shape, width)), sinusoidal_back")),
    Edited("PE-SIN/single-precision", "sinusoidal positions with angles in float32",
           edit(sinusoidal, ANGLES, 'angles = narrow(p, "float32")[..., None] * narrow(1 / wavelengths, "float32")'),
           no_mistake_in=NARROW),
    Edited("PE-SIN/degrees", "sinusoidal positions with angles taken for degrees",
           edit(sinusoidal, ANGLES, "angles = p[..., None] / wavelengths * pi() / 180")),
    Edited("PE-LRN/none", "add_positions that adds nothing", placed("x")),
    Edited("PE-LRN/from-one", "add_positions with the row after the position's: counted from 1",
           placed("x + P[(positions + 1) % len(P)]")),
    Edited("PE-LRN/restart", "add_positions that begins with row 0 whatever the positions are: the past in the "
           "cache is "
           "forgotten", placed("x + P[arange(positions.shape[-1])]")),
    Edited("PE-LRN/one-for-all", "add_positions that gives every sentence the positions of the first",
           placed("x + P[positions[:1] if positions.ndim > 1 else positions]")),
    Edited("PE-LRN/reversed", "add_positions with the table read from its end",
           placed("x + P[len(P) - 1 - positions]")),
    Edited("PE-LRN/twice", "add_positions that adds the row twice", placed("x + 2 * P[positions]")),
    Edited("PE-LRN/multiplied", "add_positions that multiplies by the row", placed("x * P[positions]")),
    Edited("PE-LRN/replaced", "add_positions that returns the row without the token", placed("0 * x + P[positions]")),
    Edited("PE-LRN/root-width", "add_positions after the token was multiplied by √C",
           placed("x * sqrt(x.shape[-1]) + P[positions]")),
    Edited("PE-LRN/back-assigned", "add_positions whose table's gradient is assigned, not added: the last sentence "
           "alone "
           "counts", edit(add_positions, ROW_BACK, ROW_BACK.replace("scatter_add", "scatter_last"))),
    Edited("PE-LRN/back-averaged", "add_positions whose table's gradient is averaged over the sentences",
           edit(add_positions, ROW_BACK, f"{ROW_BACK} / max(1, dy[..., 0, 0].size)")),
    Edited("PE-LRN/back-frozen", "add_positions with no gradient for the table",
           edit(add_positions, ROW_BACK, "return dy, 0 * P")),
    Patch("GEN/cache-position-restart", KeyValueCache.advance, "a cache whose new tokens stand at position 0 again",
           advance(lambda i, room: i - i[..., :1])),
    Patch("GEN/cache-position-late", KeyValueCache.advance, "a cache whose new tokens stand one position too far",
           advance(lambda i, room: numpy.where(i[..., :1] > 0, numpy.minimum(i + 1, room - 1), i))),
    Patch("GEN/cache-position-early", KeyValueCache.advance, "a cache whose new tokens stand one position too early",
           advance(lambda i, room: numpy.where(i[..., :1] > 0, i - 1, i))),
    Patch("GEN/cache-position-prompt", KeyValueCache.advance, "a cache whose offset counts the prompt twice",
           _twice_the_prompt, G + "skyzh/tiny-llm/pull/46"),
    Patch("GEN/cache-stale", LayerCache.extend, "a cache that gives the new keys and values alone: the past is lost",
           extend(lambda cache, k, v: (k, v)), G + "alex-hh/profam/pull/168"),
    Patch("GEN/cache-overwrites", LayerCache.extend, "a cache that writes one place too early, over the newest past",
           extend(_shifted_by_one)),
    Patch("GEN/cache-keys-missing", LayerCache.extend, "a cache that stores no keys of new tokens",
           extend(_keys_of_the_prompt)),
    Patch("GEN/cache-values-first", LayerCache.extend, "a cache that puts new values before the past, keys behind it",
           extend(_newest_first)),
]
