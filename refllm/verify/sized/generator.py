"""The generator of sized cases: 64-bit words from a seed, the name of a tensor, and a counter.

    s = stream(seed, "inputs.x")          where the words of a tensor begin
    words(s, first, count)                word first, first + 1, ... of it, as unsigned 64-bit integers

All arithmetic is that of unsigned 64-bit integers: sums and products are taken modulo 2^64, shifts are logical.

    mix(z)           z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
                     z = (z ^ (z >> 27)) * 0x94D049BB133111EB
                     z ^ (z >> 31)
    name(text)       FNV-1a: h = 0xCBF29CE484222325; for every byte: h = (h ^ byte) * 0x100000001B3
    stream(seed, t)  mix(seed + name(t))
    word(s, i)       mix(s + (i + 1) * 0x9E3779B97F4A7C15)
    below(w, n)      ((w >> 32) * n) >> 32              a whole number from 0 to n - 1, for n < 2^32

`mix` and the step of the counter are those of SplitMix64 (Steele, Lea & Flood 2014), so that word i is what that
generator gives as number i + 1. golden/README.md says the same for readers of the files, golden/sized/generator.json
has test vectors.
"""

from __future__ import annotations

import numpy

from refllm.backend import Array

MODULUS = 1 << 64
STEP = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BASIS, _PRIME = 0xCBF29CE484222325, 0x100000001B3


def mix(z: Array) -> Array:
    """Every bit of every word stirred into all the others."""
    z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(_FIRST)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(_SECOND)
    return z ^ (z >> numpy.uint64(31))


def name(text: str) -> int:
    """A number for a name: FNV-1a of its bytes."""
    h = _BASIS
    for byte in text.encode():
        h = (h ^ byte) * _PRIME % MODULUS
    return h


def stream(seed: int, text: str) -> int:
    """Where the words of the tensor of this name begin."""
    start = numpy.array([(seed + name(text)) % MODULUS], numpy.uint64)
    return int(mix(start)[0])


def words(start: int, first: int, count: int) -> Array:
    """`count` words of a stream, from number `first` on."""
    counter = numpy.arange(first + 1, first + count + 1, dtype=numpy.uint64)
    return mix(numpy.uint64(start) + counter * numpy.uint64(STEP))


def below(w: Array, n: int) -> Array:
    """Whole numbers from 0 to n - 1, from the upper halves of the words."""
    found: Array = ((w >> numpy.uint64(32)) * numpy.uint64(n)) >> numpy.uint64(32)
    return found.astype(numpy.int64)
