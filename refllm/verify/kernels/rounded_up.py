"""A number of places that is rounded up to a power of two or to whole vectors, without a mask: what lies beyond is
treated as if it belonged.

of_counts()                  (name, words that follow the operation, what makes another case of a case)
pairs("partial_rotary")      … that turns as many pairs as a power of two, by the frequencies that would follow
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.case import Case, Response
from refllm.verify.kernels.other_indices import Change

Rounded = Callable[[int], int]
UP: dict[str, Rounded] = {
    "a power of two": lambda n: 1 << max(n - 1, 0).bit_length(),
    **{f"a multiple of {m}": lambda n, m=m: -(-n // m) * m for m in (8, 16, 32, 4, 64, 128)},  # type: ignore[misc]
}
COUNTS = {"window": "", "k": "scores", "turned": "x"}  # keywords, and the input whose rows they are no longer than


def of_counts() -> Iterator[tuple[str, str, Change]]:
    for name in COUNTS:
        for words, up in UP.items():
            yield f"{name}-rounded-up", f"whose {name} is rounded up to {words}", _count(name, up)


def _count(name: str, up: Rounded) -> Change:
    def changed(case: Case) -> Case | None:
        given, rows = case.keywords.get(name), case.inputs.get(COUNTS[name])
        if not isinstance(given, int) or isinstance(given, bool):
            return None
        other = up(given) if rows is None else min(up(given), rows.shape[-1])
        if other == given:
            return None
        return replace(case, inputs=dict(case.inputs), keywords={**case.keywords, name: other})

    return changed


WAYS = {"": "", "gradient-": ", in the gradient alone", "value-": ", in the value alone"}
PARTNERS = {  # in the layout of halves, the partner of entry i
    "i + turned / 2": lambda half, n: half,
    "as many places on as there are pairs": lambda half, n: n,
}


@dataclass(frozen=True, eq=False)
class MorePairs:
    id: str
    about: str
    up: Rounded
    partner: Callable[[int, int], int]
    way: str
    gradients_alone: bool
    issue: str | None = None
    diff: list[tuple[str, list[str]]] = field(default_factory=list)

    def answer(self, case: Case, dtype: str) -> Response | None:
        function, how = plain.text()["partial_rotary"], case.keywords
        half, n, apart = self._pairs(case.inputs["x"].shape[-1], how["turned"], how["layout"])
        if n == half and apart == half:
            return None
        functions = {function: self._partial_rotary}
        return plain.answer(case, dtype, functions, traced=False, values=not case.cotangents)

    def _pairs(self, D: int, turned: int, layout: str) -> tuple[int, int, int]:
        """How many pairs there should be, how many are turned, and how far the two of a pair are apart."""
        half = turned // 2
        n = self.up(half)
        if layout != "halves":
            return half, min(n, D // 2), half
        apart = self.partner(half, n)
        return (half, min(n, D - apart), apart) if D - apart >= half else (half, half, half)

    def _partial_rotary(
        self, x: Array, *, positions: Array, base: float, turned: int, layout: str
    ) -> tuple[Array, plain.Function]:
        y, back = plain.text()["partial_rotary"](x, positions=positions, base=base, turned=turned, layout=layout)
        _, n, apart = self._pairs(x.shape[-1], turned, layout)
        one, two = (numpy.arange(n), numpy.arange(n) + apart) if layout == "halves" else (
            numpy.arange(0, 2 * n, 2), numpy.arange(1, 2 * n, 2)
        )  # fmt: skip
        angle = positions[..., None] * float(base) ** (-2 * numpy.arange(n) / turned)
        c, s = numpy.cos(angle).astype(x.dtype), numpy.sin(angle).astype(x.dtype)

        def more_pairs_back(dy: Array) -> Array:
            """That of what is written last: the second of a pair may be the first of another one."""
            written = dy.copy()
            written[..., two] = 0
            first, second = written[..., one], dy[..., two]
            dx = numpy.where(numpy.isin(numpy.arange(x.shape[-1]), numpy.union1d(one, two)), 0, dy)
            dx[..., one] += first * c + second * s
            dx[..., two] += second * c - first * s
            return dx

        if not self.gradients_alone:
            y = x.copy()
            y[..., one] = x[..., one] * c - x[..., two] * s
            y[..., two] = x[..., one] * s + x[..., two] * c
        return y, back if self.way == "value-" else more_pairs_back


def pairs(operation: str) -> Iterator[MorePairs]:
    if operation != "partial_rotary":
        return
    for way, where in WAYS.items():
        for words, up in UP.items():
            for partner, apart in PARTNERS.items():
                of_halves = "" if partner == "i + turned / 2" else f", where the partner of entry i is {partner}"
                more = f"turns {words} of pairs, by the frequencies that would follow"
                about = f"partial_rotary that {more}{of_halves}{where}"
                name = f"partial_rotary/{way}pairs-rounded-up"
                yield MorePairs(name, about, up, apart, way, way == "gradient-")
