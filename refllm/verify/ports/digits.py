"""Is a port wrong, or does it only have fewer digits than it was asked for?

Its numbers say so: every one of them can be written in a coarser precision, and in that one all of them are right. A
mistake that is no larger than the rounding of that precision cannot be told from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from refllm.backend import Array
from refllm.verify.ports import rounding
from refllm.verify.ports.judged import Judged

COARSER = {"float64": ("float32", "float16", "bfloat16"), "float32": ("float16", "bfloat16")}
REMEDY = {
    "float64": "compute every step in float64, constants and tables too, or verify with --dtype {coarser}",
    "float32": "give what was computed before it is rounded, or verify with --dtype {coarser}",
}


def lost(answers: Sequence[Judged], dtype: str, judged_in: Callable[[str], Sequence[Judged]]) -> str:
    """The precision in which all is right that is wrong in `dtype`; "" if there is none. `judged_in` judges the same
    answers in another precision."""
    if all(answer.right for answer in answers):
        return ""
    for coarser in COARSER.get(dtype, ()):
        rounded = all(_is_rounded(answer, coarser) for answer in answers)
        # the float64 of a computation that was in float32 at one step is no float32
        if (rounded or coarser == "float32") and all(answer.right for answer in judged_in(coarser)):
            return coarser
    return ""


def _is_rounded(answer: Judged, dtype: str) -> bool:
    """Whether all numbers of an answer can be written in a precision."""
    given = [one.given for one in answer.compared.values() if one.given is not None]
    return bool(given) and all(_can_be_written(x, dtype) for x in given)


def _can_be_written(x: Array, dtype: str) -> bool:
    stored = x.astype("float32") if dtype == "float32" else rounding.stored(dtype, x.astype("float32"))
    return bool((stored == x).all())


def in_words(dtype: str, coarser: str) -> str:
    """What is to be said of a port that has only these digits, and what to do."""
    remedy = REMEDY[dtype].format(coarser=coarser)
    return (
        f"Only digits are missing: every value is right as far as {coarser} can tell, and is not right in {dtype}. The "
        f"port computes in {coarser}, at least in one step: {remedy}. No mistake was sought."
    )
