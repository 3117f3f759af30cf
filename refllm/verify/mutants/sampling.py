"""Mistakes of choosing a token, and of the loop that generates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy

from refllm.backend import Array
from refllm.generation.cache import KeyValueCache
from refllm.generation.generate import generate, last_logits
from refllm.generation.sampling import choose
from refllm.verify.mutants.bank import Function, Mutant

Filter = Callable[..., Array]


def _order(z: Array) -> Array:
    return numpy.argsort(-z, axis=-1, kind="stable")


def _rank(z: Array) -> Array:
    return numpy.argsort(_order(z), axis=-1, kind="stable")


def _largest(z: Array, k: int) -> Array:
    """-inf in all but the k largest."""
    return numpy.where(_rank(z) < k, z, -numpy.inf)


def _share(z: Array) -> Array:
    e = numpy.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _before(p: Array) -> Array:
    """The probability of all that are more probable."""
    descending = numpy.take_along_axis(p, _order(p), axis=-1)
    return numpy.take_along_axis(numpy.cumsum(descending, axis=-1) - descending, _rank(p), axis=-1)


def _nucleus(p: Array, top_p: float) -> Array:
    return numpy.where(_before(p) < top_p, p, 0)


def _renormalised(p: Array) -> Array:
    return p / p.sum(axis=-1, keepdims=True)


def _first_beyond(p: Array, u: Array) -> Array:
    beyond = numpy.cumsum(p, axis=-1) > u[:, None]
    return numpy.where(beyond.any(axis=-1), beyond.argmax(axis=-1), p.shape[-1] - 1)


def _in_order_of_size(p: Array, u: Array) -> Array:
    order = _order(p)
    place = _first_beyond(numpy.take_along_axis(p, order, axis=-1), u)
    return numpy.take_along_axis(order, place[:, None], axis=-1)[:, 0]


def sampled(
    *,
    heat: Callable[[Array, float], Array] = lambda z, temperature: z / temperature,
    top_k: Callable[[Array, int], Array] = _largest,
    top_p: Callable[[Array, float], Array] = _nucleus,
    normalise: Callable[[Array], Array] = _renormalised,
    draw: Callable[[Array, Array], Array] = _first_beyond,
    greedy: Callable[[Array], Array] = lambda z: z.argmax(axis=-1),
    nucleus_first: bool = False,
    share: Callable[[Array], Array] = _share,
) -> Function:
    """The choice of tokens with a part of it exchanged."""

    def changed(logits: Array, *, temperature: float, **how: Any) -> Array:
        k, mass, u = how["top_k"], how["top_p"], how["uniforms"]
        if u is None:
            return greedy(logits)
        with numpy.errstate(all="ignore"):
            z = heat(logits.astype("float64"), temperature)
            if nucleus_first and mass is not None:
                z = numpy.where(top_p(share(z), mass) > 0, z, -numpy.inf)
            p = share(z if k is None else top_k(z, min(k, z.shape[-1])))
            if not nucleus_first and mass is not None:
                p = top_p(p, mass)
            return draw(normalise(p), u)

    return changed


def _with_ties(z: Array, k: int) -> Array:
    """All that are not below the k-th largest."""
    smallest = numpy.take_along_axis(z, _order(z)[..., k - 1 : k], axis=-1)
    return numpy.where(z >= smallest, z, -numpy.inf)


def _later_of_equals(z: Array, k: int) -> Array:
    return _largest(z[..., ::-1], k)[..., ::-1]


def _without_the_crossing(p: Array, top_p: float) -> Array:
    kept = numpy.where(_before(p) + p <= top_p, p, 0)
    return numpy.where(kept.any(axis=-1, keepdims=True), kept, numpy.where(_rank(p) == 0, p, 0))


def _what_is_not_covered(p: Array, top_p: float) -> Array:
    """In float32, as there: the sums from the least probable on that are beyond 1 - top_p."""
    up_to = (1 - _before(p)).astype("float32")
    return numpy.where(up_to > numpy.float32(1 - top_p), p, 0)


def _ascending(p: Array, top_p: float) -> Array:
    return numpy.where(1 - _before(p) - p < top_p, p, 0)


def _zero_logits(z: Array, k: int) -> Array:
    return numpy.where(_rank(z) < k, z, 0.0)


def _last_of_prompt_unread(p: Any, *, ids: Array, **how: Any) -> Iterator[tuple[Array, Array]]:
    return generate(p, ids=ids[:, :-1] if ids.shape[1] > 1 else ids, **how)


def _position(place: Callable[[int], int]) -> Function:
    """The logits of another place than the last."""

    def changed(p: Any, *, model: Any, **how: Any) -> Array:
        logits, _ = model.forward(p, dropout_mask=None, **how)
        return logits[:, place(logits.shape[1])]

    return changed


def _unseen_tokens(self: KeyValueCache, tokens: int) -> tuple[Array, Array | None]:
    """A cache that lets new tokens attend what it already held, and not themselves or each other."""
    positions, _ = _advance(self, tokens)
    start = self.length - tokens
    if start == 0:
        return positions, None
    return positions, (numpy.arange(self.length) < start)[None, None, None, :]


_advance = KeyValueCache.advance

# fmt: off
MUTANTS = [
    Mutant("GEN/temperature-multiplied", choose, "sampling with logits multiplied by the temperature",
           sampled(heat=lambda z, t: z * t)),
    Mutant("GEN/temperature-ignored", choose, "sampling that ignores the temperature", sampled(heat=lambda z, t: z)),
    Mutant("GEN/temperature-squared", choose, "sampling with logits divided by the temperature twice",
           sampled(heat=lambda z, t: z / t / t)),
    Mutant("GEN/temperature-after-softmax", choose, "sampling with probabilities, not logits, divided by the "
           "temperature, and a softmax of these", sampled(heat=lambda z, t: _share(z) / t)),
    Mutant("GEN/top-k-one-more", choose, "sampling from the top_k + 1 largest",
           sampled(top_k=lambda z, k: _largest(z, k + 1))),
    Mutant("GEN/top-k-one-less", choose, "sampling from the top_k - 1 largest",
           sampled(top_k=lambda z, k: _largest(z, max(1, k - 1)))),
    Mutant("GEN/top-k-ties", choose, "sampling that keeps every logit equal to the k-th largest",
           sampled(top_k=_with_ties), "https://github.com/vllm-project/vllm/pull/15478"),
    Mutant("GEN/top-k-later-of-equals", choose, "sampling whose top_k keeps the later of two equal logits",
           sampled(top_k=_later_of_equals)),
    Mutant("GEN/top-k-smallest", choose, "sampling from the top_k smallest", sampled(top_k=lambda z, k: numpy.where(
           _rank(-z) < k, z, -numpy.inf))),
    Mutant("GEN/top-k-zero-logits", choose, "sampling that sets the other logits to 0 instead of -infinity",
           sampled(top_k=_zero_logits)),
    Mutant("GEN/top-k-ignored", choose, "sampling that ignores top_k", sampled(top_k=lambda z, k: z)),
    Mutant("GEN/top-p-ignored", choose, "sampling that ignores top_p", sampled(top_p=lambda p, mass: p)),
    Mutant("GEN/top-p-without-crossing", choose, "sampling without the token that crosses top_p",
           sampled(top_p=_without_the_crossing), "https://github.com/fishaudio/fish-speech/pull/1171"),
    Mutant("GEN/top-p-one-more", choose, "sampling with one token more when top_p is reached exactly",
           sampled(top_p=lambda p, mass: numpy.where(_before(p) <= mass, p, 0)),
           "https://github.com/huggingface/transformers/issues/18976"),
    Mutant("GEN/top-p-least-masks-all", choose, "sampling whose top_p drops what 1 - top_p covers, the least probable "
           "first: a tiny top_p drops all", sampled(top_p=_what_is_not_covered),
           "https://github.com/ml-explore/mlx-lm/issues/1912"),
    Mutant("GEN/top-p-complement", choose, "sampling that takes top_p for the mass to be dropped",
           sampled(top_p=lambda p, mass: _nucleus(p, 1 - mass)),
           "https://github.com/lucidrains/x-transformers/issues/184"),
    Mutant("GEN/top-p-ascending", choose, "sampling whose top_p collects the least probable tokens first",
           sampled(top_p=_ascending)),
    Mutant("GEN/top-p-threshold", choose, "sampling that keeps tokens of probability above 1 - top_p",
           sampled(top_p=lambda p, mass: numpy.where((p > 1 - mass) | (_rank(p) == 0), p, 0))),
    Mutant("GEN/top-p-not-renormalised", choose, "sampling that does not divide by the mass that top_p left",
           sampled(normalise=lambda p: p)),
    Mutant("GEN/top-p-before-top-k", choose, "sampling with top_p applied before top_k", sampled(nucleus_first=True)),
    Mutant("GEN/drawn-in-order-of-size", choose, "sampling that runs through the tokens by probability, not by index",
           sampled(draw=_in_order_of_size)),
    Mutant("GEN/drawn-from-the-end", choose, "sampling that runs through the tokens from the last",
           sampled(draw=lambda p, u: p.shape[-1] - 1 - _first_beyond(p[:, ::-1], u))),
    Mutant("GEN/reaches-not-exceeds", choose, "sampling of the first token whose cumulative sum REACHES the uniform",
           sampled(draw=lambda p, u: (numpy.cumsum(p, axis=-1) >= u[:, None]).argmax(axis=-1))),
    Mutant("GEN/next-token", choose, "sampling of the token after the one drawn",
           sampled(draw=lambda p, u: numpy.minimum(_first_beyond(p, u) + 1, p.shape[-1] - 1))),
    Mutant("GEN/one-uniform", choose, "sampling with the first row's uniform for all rows",
           sampled(draw=lambda p, u: _first_beyond(p, numpy.broadcast_to(u[:1], u.shape)))),
    Mutant("GEN/always-greedy", choose, "sampling that takes the most probable token",
           sampled(draw=lambda p, u: p.argmax(axis=-1))),
    Mutant("GEN/weights-of-logits", choose, "sampling by the logits' shares, without the exponential",
           sampled(share=lambda z: _renormalised(numpy.where(numpy.isfinite(z), z - z[numpy.isfinite(z)].min(), 0)))),
    Mutant("GEN/greedy-smallest", choose, "greedy choice of the smallest logit",
           sampled(greedy=lambda z: z.argmin(axis=-1))),
    Mutant("GEN/e6-starts-late", generate, "generation that leaves the last token of the prompt unread (E6)",
           _last_of_prompt_unread),
    Mutant("GEN/first-place", last_logits, "generation from the logits of the first place, not the last",
           _position(lambda T: 0)),
    Mutant("GEN/place-before-last", last_logits, "generation from the logits of the place before the last",
           _position(lambda T: max(0, T - 2))),
    Mutant("GEN/cache-without-itself", KeyValueCache.advance, "a cache whose new tokens do not see themselves",
           _unseen_tokens),
]
