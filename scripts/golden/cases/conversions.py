"""L1: numbers of float32 in narrower types and back, as bit patterns."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from golden.case import Case, Draw
from refllm.spec.conversions import TYPES

SIGN, INFINITY, NAN = 1 << 31, 0x7F800000, 0x7FC00000


def narrowed() -> list[Case]:
    return [case for to in TYPES for case in _of_type(to)]


def _of_type(to: str) -> list[Case]:
    digits, lowest, *_ = TYPES[to]
    largest = _largest(to)
    step, tiny = 2.0**-digits, 2.0 ** (lowest - digits)
    above = largest + _spacing(to) / 2  # the tie between the largest number and the one that would be next

    def case(slug: str, about: str, patterns: Iterable[int], *, saturate: bool = False) -> Case:
        bits = np.array(list(patterns), dtype=int)
        how = {"to": to, "saturate": saturate}
        return Case(f"FP8/{to.replace('_', '-')}-{slug}", "narrowed", about, {"bits": bits}, how, gradient=False)

    ties = [1 + n * step / 2 for n in range(1, 8, 2)] + [2 - step / 2, -1 - step / 2, -1 - 3 * step / 2]
    subnormal = [tiny / 2, tiny * 1.5, tiny * 2.5, 2.0**lowest - tiny / 2, tiny, 2.0**lowest, -tiny / 2, -tiny * 1.5]
    border = [largest, above, -largest, -above]
    last = 2.0 ** math.floor(math.log2(largest))  # the smallest number of the largest exponent
    high = [last * x for x in (1, 1 + step, 1.171875, 1.25, 1.5, 1 + 4 * step)] + [largest - last * step, largest]
    drawn = Draw(f"FP8/{to}").normal(12) * (1 + 2.0**-9 + 2.0**-12)  # digits that are cut off
    overflow = "the largest number, the tie above it, its neighbours, twice as much, infinities"
    beyond = [*_and_neighbours(border), *_bits([2 * largest, -2 * largest]), INFINITY, SIGN | INFINITY]
    beyond = [bits for bits in beyond if bits % SIGN <= INFINITY]
    return [
        case("numbers", "numbers that are rounded up and down, and exact ones", [*_bits(drawn), *_bits([1, -2, 0.5])]),
        case("ties", "halfway between two numbers: the even one; and the next numbers of float32 beside each",
             _and_neighbours(ties)),
        case("subnormal", "below the smallest normal number: half of the smallest is 0, and a tie may round up to it",
             _and_neighbours(subnormal)),
        case("zeros", "zeros keep their sign; subnormal numbers of float32, its smallest normal number",
             [0, SIGN, 1, SIGN | 1, 0x007FFFFF, 0x00800000, 0x00008000, 0x00018000, SIGN | 0x00028000]),
        case("overflow", f"{overflow}: to infinity, in E4M3 to NaN", beyond),
        case("saturated", f"{overflow}: to the largest number", beyond, saturate=True),
        case("saturated-below", "numbers of the largest exponent, and the largest: none of them is beyond it, and none "
             "becomes it", _bits([*high, *(-x for x in high)]), saturate=True),
        case("nan", "NaN with and without a sign, with digits in its last places alone: NaN, not an infinity",
             [NAN, SIGN | NAN, 0x7F800001, 0x7FFFFFFF, SIGN | 0x7F800001]),
        case("nan-saturated", "NaN stays NaN where all else saturates", [NAN, SIGN | NAN, 0x7F800001, 0x7FFFFFFF],
             saturate=True),
    ]  # fmt: skip


def widened() -> list[Case]:
    found = []
    for of, (digits, _, _, beyond, _, minus) in TYPES.items():
        about, patterns = "every pattern", np.arange(2 * minus)
        if minus > 0x80:
            about = "zeros, subnormal numbers, the smallest normal one, numbers, the largest, infinities, NaN"
            least = 1 << digits
            some = [0, 1, 2, 3, least - 1, least, least + 1, beyond - 1, beyond, beyond + 1, beyond + least // 2]
            drawn = Draw(f"FP8/widened-{of}").integers(12, high=beyond)
            patterns = np.array([*some, *(minus | x for x in some), *drawn], dtype=int)
        id = f"FP8/widened-{of.replace('_', '-')}"
        found.append(Case(id, "widened", about, {"bits": patterns}, {"of": of}, gradient=False))
    return found


def _bits(values: Iterable[float]) -> list[int]:
    with np.errstate(over="ignore"):
        return [int(x) for x in np.array(list(values), np.float64).astype(np.float32).view(np.uint32)]


def _and_neighbours(values: Iterable[float]) -> list[int]:
    return [bits + step for bits in _bits(values) for step in (-1, 0, 1)]


def _largest(to: str) -> float:
    digits, lowest, largest, *_ = TYPES[to]
    exponent, rest = divmod(largest, 1 << digits)
    return (1 + rest * 2.0**-digits) * 2.0 ** (exponent - 1 + lowest)


def _spacing(to: str) -> float:
    digits, lowest, largest, *_ = TYPES[to]
    return 2.0 ** ((largest >> digits) - 1 + lowest - digits)
