"""Mistakes of rotary positions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy

from refllm.backend import Array
from refllm.ops.rotary import rotary_halves, rotary_interleaved
from refllm.verify.mutants.autodiff import Node, differentiable
from refllm.verify.mutants.bank import Function, Mutant

Layout = Callable[[int], tuple[Array, Array, Array]]
Angle = Callable[[Array, Array, float, float], Array]


def halves(D: int) -> tuple[Array, Array, Array]:
    """Of every entry: the number of its pair, the entry that it is paired with, and the sign of that one's sine."""
    i = numpy.arange(D)
    return i % (D // 2), (i + D // 2) % D, numpy.where(i < D // 2, -1.0, 1.0)


def interleaved(D: int) -> tuple[Array, Array, Array]:
    i = numpy.arange(D)
    return i // 2, i ^ 1, numpy.where(i % 2 == 0, -1.0, 1.0)


def _angle(position: Array, pair: Array, D: float, base: float) -> Array:
    return position * base ** (-2.0 * pair / D)


def _in(dtype: str) -> Angle:
    """Angles computed in a narrower type."""

    def angle(position: Array, pair: Array, D: float, base: float) -> Array:
        frequency = (base ** (-2.0 * pair / D)).astype(dtype)
        return (position.astype(dtype) * frequency).astype("float64")

    return angle


def spin(x: Node, layout: Layout, *, positions: Array, base: float) -> Node:
    """The rotation as it should be."""
    pair, partner, sign = layout(x.shape[-1])
    turned = _angle(positions[..., None].astype("float64"), pair, x.shape[-1], base)
    cosine, sine = (wave.astype(x.value.dtype) for wave in (numpy.cos(turned), sign * numpy.sin(turned)))
    return x * cosine + x[..., partner] * sine


def turn(
    layout: Layout,
    *,
    angle: Angle = _angle,
    places: Callable[[Array, Node], Array] = lambda positions, x: positions,
    join: Callable[[Node, Node, Array, Array], Node] = lambda x, other, cosine, sine: x * cosine + other * sine,
) -> Function:
    """The rotation with a part of it exchanged, and the true gradient of what then is computed."""

    @differentiable
    def changed(x: Node, *, positions: Array, base: float) -> Node:
        pair, partner, sign = layout(x.shape[-1])
        turned = angle(places(positions, x)[..., None].astype("float64"), pair, x.shape[-1], base)
        cosine, sine = (wave.astype(x.value.dtype) for wave in (numpy.cos(turned), sign * numpy.sin(turned)))
        return join(x, x[..., partner], cosine, sine)

    return changed


def _one_for_all(positions: Array, x: Node) -> Array:
    """The positions of the first sentence for every one."""
    return positions[:1] if positions.ndim > 1 else positions


def _half_of_the_width(layout: Layout) -> Layout:
    """The first half of the entries is turned, the others have the angle 0."""

    def changed(D: int) -> tuple[Array, Array, Array]:
        n = D // 2 - D // 2 % 2
        pair, partner, sign = layout(n) if n else (numpy.zeros(0, int), numpy.zeros(0, int), numpy.zeros(0))
        rest = numpy.arange(n, D)
        return (
            numpy.concatenate([pair, 0 * rest - 1]),
            numpy.concatenate([partner, rest]),
            numpy.concatenate([sign, 0.0 * rest]),
        )

    return changed


def _none_if_negative(position: Array, pair: Array, D: float, base: float) -> Array:
    return numpy.where(pair < 0, 0.0, _angle(position, pair, D // 2 - D // 2 % 2 or 1, base))


def _exchanged(order: Layout, pairs: Layout) -> Layout:
    """The angles of one layout, the partners of the other."""
    return lambda D: (pairs(D)[0], *order(D)[1:])


def pullback(layout: Layout, back: Callable[[Function, Array], Array]) -> Function:
    """The right value with the pullback back(the rotation by these positions, dy)."""

    def changed(x: Array, *, positions: Array, base: float) -> tuple[Array, Function]:
        right = turn(layout)

        def again(z: Array) -> Array:
            y: Array = right(z, positions=positions, base=base)[0]
            return y

        return again(x), lambda dy: back(again, dy)

    return changed


def _mutants(name: str, original: Function, layout: Layout, other: Layout) -> list[Mutant]:
    this, pairs = f"rotary positions ({name})", "2i and 2i + 1" if name == "halves" else "i and i + D/2"
    found: list[tuple[str, str, Function]] = [
        ("turned-back", "turned the other way",
         turn(layout, join=lambda x, other, cosine, sine: x * cosine - other * sine)),
        ("other-layout", f"with the pairs of the other layout, {pairs}", turn(other)),
        ("mixed-layout", "with the partners of this layout and the angles of the other",
         turn(_exchanged(layout, other))),
        ("from-one", "counted from 1", turn(layout, places=lambda positions, x: positions + 1)),
        ("restart", "counted from 0 whatever the positions are",
         turn(layout, places=lambda positions, x: numpy.arange(x.shape[-2]))),
        ("one-for-all", "that give every sentence the positions of the first", turn(layout, places=_one_for_all)),
        ("base-fixed", "with the base 10000 whatever is asked for",
         turn(layout, angle=lambda p, i, D, base: _angle(p, i, D, 10000.0))),
        ("base-tenth", "with a tenth of the base, 1000 for 10000",
         turn(layout, angle=lambda p, i, D, base: _angle(p, i, D, base / 10))),
        ("pair-exponent", "with the exponent i/D of the pair instead of 2i/D",
         turn(layout, angle=lambda p, i, D, base: _angle(p, i, 2 * D, base))),
        ("doubled-exponent", "with the exponent 4i/D: the width of the pairs taken for D",
         turn(layout, angle=lambda p, i, D, base: _angle(p, i, D / 2, base))),
        ("last-frequency", "whose last pair has the frequency 1/base, by D/2 - 1 in the exponent",
         turn(layout, angle=lambda p, i, D, base: p * base ** (-i / max(1, D / 2 - 1)))),
        ("inverse-frequency", "multiplied by base^(2i/D) instead of divided",
         turn(layout, angle=lambda p, i, D, base: p * base ** (2.0 * i / D))),
        ("degrees", "with angles taken for degrees",
         turn(layout, angle=lambda p, i, D, base: _angle(p, i, D, base) * math.pi / 180)),
        ("single-precision", "with angles in float32", turn(layout, angle=_in("float32"))),
        ("half-precision", "with angles in float16", turn(layout, angle=_in("float16"))),
        ("no-minus", "without the minus sign: both of a pair add the other's sine",
         turn(layout, join=lambda x, other, cosine, sine: x * cosine + other * abs(sine))),
        ("sin-cos-swapped", "with sine and cosine swapped",
         turn(layout, join=lambda x, other, cosine, sine: x * sine + other * cosine)),
        ("half-of-the-width", "that turn the first half of the width alone",
         turn(_half_of_the_width(layout), angle=_none_if_negative)),
        ("none", "that turn nothing", turn(layout, join=lambda x, other, cosine, sine: x + 0.0 * other)),
        ("back-forward", "whose gradient is turned on instead of back", pullback(layout, lambda again, dy: again(dy))),
        ("back-identity", "whose gradient passes unchanged", pullback(layout, lambda again, dy: dy.copy())),
    ]  # fmt: skip
    return [Mutant(f"LONG/rotary-{name}-{slug}", original, f"{this} {about}", f) for slug, about, f in found]


MUTANTS = [
    *_mutants("halves", rotary_halves, halves, interleaved),
    *_mutants("interleaved", rotary_interleaved, interleaved, halves),
]
