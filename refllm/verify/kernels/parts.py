"""Parts of an axis that kernels take for the whole, and lengths to which they pad it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case
from refllm.verify.kernels.axes import Letters


@dataclass(frozen=True)
class Part:
    id: str
    text: str  # with a place for the axis, {of}
    places: Callable[[int], Array] = numpy.arange
    size: Callable[[int], int] = lambda n: n

    def words(self, axis: str) -> str:
        """Of the places of an axis, or of rows."""
        if axis == "rows":
            return (
                self.text.replace("places", "rows")
                .replace("place", "row")
                .replace("half", "half of the rows")
                .format(of="")
            )
        return self.text.format(of=f" of {axis}")


def _first(m: int) -> Part:
    return Part("first-alone", f"the first {m:,} places{{of}} alone", lambda n: numpy.arange(min(m, n)))


def _whole(m: int) -> Part:
    return Part(
        "tail-lost",
        f"the whole parts of {m:,} places{{of}} alone, without the tail",
        lambda n: numpy.arange(n // m * m),
    )


def _last_part(m: int) -> Part:
    return Part("last-part-alone", f"the last part of {m:,} places{{of}} alone",
                lambda n: numpy.arange((n - 1) // m * m if n else 0, n))  # fmt: skip


def _first_parts(m: int) -> Part:
    return Part("last-part-lost", f"the places{{of}} before the last part of {m:,}",
                lambda n: numpy.arange((n - 1) // m * m if n else 0))  # fmt: skip


def _lanes(kept: int, of: int) -> Part:
    return Part("lanes-lost", f"the first {kept} of each {of} places{{of}} alone",
                lambda n: numpy.flatnonzero(numpy.arange(n) % of < kept))  # fmt: skip


def _last_of(k: int) -> Part:
    return Part("split-alone", f"the last of {k} splits{{of}} alone", lambda n: numpy.arange(-(-n // k) * (k - 1), n))


def _without_split(k: int) -> Part:
    return Part(
        "split-lost", f"all but the last of {k} splits{{of}}", lambda n: numpy.arange(min(n, -(-n // k) * (k - 1)))
    )


WIDTHS = (8, 4, 32, 16, 64, 2, 128, 256, 512, 1024)
LIMITS = (1024, 64, 128, 32, 256, 512, 2048, 4096, 8192, 16, 16384, 32768, 65536)
PARTS: tuple[Part, ...] = (
    *map(_whole, WIDTHS), *map(_first, LIMITS),
    Part("split-alone", "the first half{of} alone", lambda n: numpy.arange(n // 2)),
    Part("split-alone", "the first half{of} alone", lambda n: numpy.arange(-(-n // 2))),
    Part("split-alone", "the second half{of} alone", lambda n: numpy.arange(n // 2, n)),
    Part("split-alone", "the second half{of} alone", lambda n: numpy.arange(-(-n // 2), n)),
    Part("last-lost", "all places{of} but the last one", lambda n: numpy.arange(max(n - 1, 0))),
    Part("first-lost", "all places{of} but the first one", lambda n: numpy.arange(1, n)),
    Part("last-alone", "the last place{of} alone", lambda n: numpy.arange(max(n - 1, 0), n)),
    *(_lanes(kept, of) for kept, of in ((16, 32), (1, 2), (3, 4), (2, 4), (1, 4), (31, 32), (32, 64), (4, 8))),
    *map(_last_part, (64, 128, 32, 256, 16, 1024, 512, 2048)),
    *map(_first_parts, (64, 128, 32, 256, 16, 1024, 512, 2048)),
    *map(_last_of, (4, 8)), *map(_without_split, (4, 8)),
)  # fmt: skip


def _multiple(m: int) -> Part:
    return Part("padding", f"a multiple of {m:,}", size=lambda n: -(-n // m) * m)


def _last_parts(k: int, m: int) -> Part:
    words = f"the last {k} parts of {m:,} places{{of}} alone, each of which overwrites an older one"
    return Part("last-parts-alone", words, lambda n: numpy.arange(max(0, -(-n // m) - k) * m, n))


RINGS: tuple[Part, ...] = tuple(
    _last_parts(k, m) for k in (8, 4, 2, 16) for m in (32, 64, 16, 128, 256)
)  # sums in slots


def _moved(m: int) -> Part:
    words = f"parts of {m:,} places{{of}}, of which the last is moved back so that it is whole and counts some again"
    return Part("moved-tail-twice", words, lambda n: numpy.concatenate(
        [numpy.arange(n // m * m), numpy.arange(n - m, n)]) if n > m and n % m else numpy.arange(n))  # fmt: skip


MOVED: tuple[Part, ...] = tuple(map(_moved, (64, 128, 32, 16, 256, 8, 512, 1024)))

PADDED: tuple[Part, ...] = (
    Part("padding", "a power of two", size=lambda n: 1 << max(n - 1, 0).bit_length()),
    *map(_multiple, (32, 64, 1024, 128, 16, 8, 256, 512, 4)),
)


def in_parts(case: Case, names: dict[str, Letters], T: int, first: int, last: int, *, kept: bool) -> Case:
    """The steps of a recurrent case from `first` to `last`, beginning with its own state or with zeros."""

    def cut(x: Any, name: str) -> Any:
        if not isinstance(x, numpy.ndarray):
            return x
        for axis, own in enumerate(names.get(name, ())):
            x = x.take(numpy.arange(first, last), axis=axis) if own == "T" and x.shape[axis] == T else x
        if not kept and name in ("inputs.h", "inputs.c"):
            x = numpy.zeros_like(x)
        return x

    inputs = {n: cut(x, f"inputs.{n}") for n, x in case.inputs.items()}
    keywords = {n: cut(x, f"keywords.{n}") for n, x in case.keywords.items()}
    cotangents = {n: cut(x, f"outputs.{n}") for n, x in case.cotangents.items()}
    return replace(case, inputs=inputs, keywords=keywords, cotangents=cotangents)
