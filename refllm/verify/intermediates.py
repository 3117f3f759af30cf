"""Where an error begins: whether the first wrong intermediate value follows from those that were given before it.

The text (refllm/spec) names its intermediate values. Evaluated with what an implementation gave in their place, it says
what the next one ought to be: if that was given, the step is right and its inputs are not (the error is inherited); if
not, the step itself is wrong (the error is local).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy

from refllm.backend import Array
from refllm.spec.array import watched
from refllm.verify.case import Case, Truth
from refllm.verify.tolerance import ratios


def located(case: Case, given: Mapping[str, Array], wrong: list[str], dtype: str, C: float) -> str | None:
    """One line on the first wrong intermediate: whether its error is local or inherited. None if none is wrong."""
    if not wrong:
        return None
    first, *others = wrong
    names = list(case.taps)
    before = {name: given[name] for name in names[: names.index(first)] if name in given}
    reached = f"everything before it agrees, up to {list(before)[-1]}" if before else "it is the first there is"
    later = f"{len(others)} later {'one differs' if others[1:] == [] else 'ones differ'} too"
    later = f"; {later if others else 'no later one differs'}"
    expected = computed(case, first, before)
    if expected is None:
        return f"{first} is the first intermediate that differs: {reached}{later}"
    follows = not (ratios(given[first], Truth(expected, case.taps[first].condition), dtype, C) > 1).any()
    kind = "inherited: it follows from its inputs" if follows else "local: it does not follow from its inputs"
    missing = [] if follows else _missing(case, first, before, expected)
    error = f"local or inherited is not known without {missing[-1]}" if missing else f"the error is {kind}"
    return f"{first} is the first intermediate that differs ({reached}); {error}{later}"


def _missing(case: Case, first: str, before: Mapping[str, Array], expected: Array) -> list[str]:
    """What was not given and ought to have been, to know what the first wrong one was made of."""
    names = list(case.taps)
    absent = [name for name in names[: names.index(first)] if name not in before]
    return [name for name in absent if _depends(case, first, before, name, expected)]


def _depends(case: Case, first: str, before: Mapping[str, Array], name: str, expected: Array) -> bool:
    """Whether another value in the place of one that was not given changes what the first wrong one ought to be."""
    other = computed(case, first, {**before, name: case.taps[name].value + 1.0})
    return other is not None and not numpy.allclose(other, expected)


class _ReachedError(Exception):
    """The value that was asked for: nothing more need be computed."""

    def __init__(self, value: Array) -> None:
        super().__init__()
        self.value = value


def computed(case: Case, name: str, given: Mapping[str, Array]) -> Array | None:
    """The intermediate of that name as the text computes it in float64 from those that are given; None if it has none
    of that name."""
    from refllm.verify import plain  # which is an implementation itself, and imports what runs one

    if case.operation not in plain.operations():
        return None

    def look(found: str, x: Array) -> Array:
        if found == name:
            raise _ReachedError(x)
        other = given.get(found)
        return x if other is None or numpy.shape(other) != x.shape else numpy.asarray(other, "float64")

    with watched(look), numpy.errstate(all="ignore"):
        try:
            plain.operations()[case.operation](*case.arguments("float64"), **case.keyword_arguments())
        except _ReachedError as reached:
            return reached.value
    return None
