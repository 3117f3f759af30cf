"""A question to the plain text, answered in exact numbers: values, the gradients of its hand-written pullback, and
those of the tape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import mp, mpf

from refllm.numbers import exact
from refllm.numbers.exact import Exact
from refllm.numbers.nodes import Node, number
from refllm.parameters import named_leaves
from refllm.spec.array import tapped
from refllm.verify.case import flat, roots, tree

Arrays = dict[str, Any]  # dotted name -> Exact, or an array of whole numbers
Cotangent = Callable[[str, tuple[int, ...]], np.ndarray]  # name and shape of an output -> what its gradient begins with


@dataclass(frozen=True)
class Answer:
    outputs: Arrays
    by_hand: Arrays  # empty where no gradient is asked for
    by_tape: Arrays
    taps: Arrays


def evaluate(
    function: Callable[..., Any],
    inputs: Mapping[str, np.ndarray],
    keywords: Mapping[str, Any],
    names: Callable[[int], tuple[str, ...]],
    cotangent: Cotangent | None,
    *,
    tape: bool = True,
) -> Answer:
    """Within `exact.digits`. `names` are those of so many outputs. A config stays as it is: its numbers become exact
    where they meet such ones."""
    leaves = exact.lift(dict(inputs))
    arguments = [tree(root, leaves) for root in roots(leaves)]
    lifted = {n: x.copy() if n == "config" else exact.lift(x) for n, x in keywords.items()}
    with tapped() as taps:
        found = function(*arguments, **lifted)
    has_back = isinstance(found, tuple) and len(found) == 2 and callable(found[1])
    y, back = found if has_back else (found, None)
    parts = y if isinstance(y, tuple) else (y,)
    outputs = {
        name: as_exact(x)
        for root, part in zip(names(len(parts)), parts, strict=True)
        for name, x in named_leaves(part, root)
    }
    if cotangent is None or back is None:
        return Answer(outputs, {}, {}, taps)
    slopes = {name: exact.lift(cotangent(name, x.shape)) for name, x in outputs.items()}
    by_hand = flat(back(*(tree(root, slopes) for root in roots(slopes))), list(leaves), "the pullback")
    by_tape = exact.gradients(list(outputs.values()), list(slopes.values()), list(leaves.values())) if tape else []
    return Answer(outputs, {n: as_exact(x) for n, x in by_hand.items()}, dict(zip(leaves, by_tape, strict=False)), taps)


def as_exact(x: Any) -> Any:
    """A number that is no array as an array without axes, floats as the numbers that they are; whole numbers stay."""
    if isinstance(x, Node | float):
        return Exact(x)
    return exact.lift(x)


def furthest(a: Exact, b: Exact) -> float:
    """The decimal logarithm of the largest difference, as a share of the largest number of b or of 1."""
    size = max((abs(number(n)) for n in b.nodes.flat if mp.isfinite(number(n))), default=mpf(1))
    pairs = zip(a.nodes.flat, b.nodes.flat, strict=True)
    worst = max((abs(number(m) - number(n)) for m, n in pairs), default=mpf(0))
    return float(mp.log10(worst / max(size, mpf(1)))) if worst else -mp.inf
