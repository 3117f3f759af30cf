"""What tells the cases that an edit explains from those that it gets wrong: a mistake may show under one choice alone.

where = separating(explained, contradicting)    'norm is "pre"'; None if no property of a case separates them
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy

from refllm.verify.case import Case
from refllm.verify.keywords import KEYWORDS

Property = tuple[str, Any]


def separating(explained: Iterable[Case], contradicting: Iterable[Case]) -> str | None:
    """A property that all explained cases have and none of the contradicting ones; the plainest, in words."""
    first, *others = [dict(properties(case)) for case in explained]
    against = [dict(properties(case)) for case in contradicting]
    for name, value in first.items():
        if all(name in other and other[name] == value for other in others) and not any(
            other.get(name) == value for other in against
        ):
            return _words(name, value)
    return None


def properties(case: Case) -> Iterator[Property]:
    """What a case asks for: its keywords, its configuration, which parameters there are, and how shapes compare."""
    for name, value in case.keywords.items():
        own = KEYWORDS.get(name, name)
        if isinstance(value, dict):
            yield from ((f"{own}.{key}", x) for key, x in value.items() if _is_plain(x))
        elif _is_plain(value):
            yield own, value
        if not isinstance(value, dict | bool | str):
            yield f"{own} given", value is not None
        if isinstance(value, numpy.ndarray):
            yield f"{own} has a batch", value.ndim > 1
    yield from _comparisons(case)
    yield from _sizes(case)
    yield from _rows_without_a_key(case)
    for part in sorted({part for name in case.inputs for part in name.split(".")[1:] if not part.isdigit()}):
        yield f"p has {part}", True


def _is_plain(x: Any) -> bool:
    return x is None or isinstance(x, str | bool | int | float)


def _comparisons(case: Case) -> Iterator[Property]:
    """How numbers that are given compare, where they are of one kind."""
    arrays = list(case.inputs.items())
    for (a, x), (b, y) in pairwise(arrays):
        if min(x.ndim, y.ndim) >= 2 and not a.startswith("p.") and not b.startswith("p."):
            for sign, holds in (("<", x.shape[-2] < y.shape[-2]), (">", x.shape[-2] > y.shape[-2])):
                yield f"{a} has {'fewer' if sign == '<' else 'more'} rows than {b}", bool(holds)
    numbers = {n: x for n, x in case.keywords.items() if isinstance(x, int | float) and not isinstance(x, bool)}
    for a, b in (("step", "warmup"), ("warmup", "step"), ("step", "total"), ("kv_heads", "heads")):
        if a in numbers and b in numbers:
            yield f"{a} < {b}", bool(numbers[a] < numbers[b])


def _sizes(case: Case) -> Iterator[Property]:
    for name, x in case.inputs.items():
        if not name.startswith("p."):
            yield f"{name} has a batch", x.ndim > 2 and x.shape[0] > 1
            yield f"{name} has leading axes", x.ndim > 2
            yield f"the width of {name} is odd", bool(x.ndim and x.shape[-1] % 2)


def _rows_without_a_key(case: Case) -> Iterator[Property]:
    """Whether each query may attend some key, where a case has queries, keys and masks."""
    if not {"q", "k"} <= case.inputs.keys() or not {"causal", "allowed"} <= case.keywords.keys():
        return
    T, S = case.inputs["q"].shape[-2], case.inputs["k"].shape[-2]
    seen = numpy.tri(T, S, S - T, dtype=bool) if case.keywords["causal"] else numpy.ones((T, S), bool)
    allowed = case.keywords["allowed"]
    yield "each query has a key", bool((seen if allowed is None else seen & numpy.asarray(allowed)).any(axis=-1).all())


def _words(name: str, value: Any) -> str:
    if name.startswith("p has ") or (isinstance(value, bool) and " " in name):
        return name.replace(" given", " is given") if value else f"not: {name}"
    shown = f'"{value}"' if isinstance(value, str) else f"{value}"
    return f"{name} is {shown}"
