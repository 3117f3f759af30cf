"""What a wrong answer tells: values or gradients alone, numbers or choices, how many, and lost digits."""

from __future__ import annotations

import numpy

from refllm.verify.case import Answers, Response
from refllm.verify.imitations import equal
from refllm.verify.runner import Result


def values_differ(result: Result) -> bool:
    """Whether more than a gradient is wrong."""
    return any(v.wrong and not v.name.startswith("gradient") for v in result.verdicts)


def is_rounding(result: Result, dtype: str) -> bool:
    """Whether an answer is the truth but for lost digits, which no other formula explains."""
    truth = Answers(result.case.outputs, result.case.gradients).response()
    return result.response is not None and equal(result.case, result.response, truth, dtype)


def is_off_in_numbers(result: Result) -> bool:
    """Whether a real number is wrong, and not only which are there."""
    truths = {**result.case.outputs, **{f"gradient of {n}": t for n, t in result.case.gradients.items()}}
    kinds = {name: truth.value.dtype.kind for name, truth in truths.items()}
    wrong = [v for v in result.verdicts if kinds.get(v.name.removeprefix("output "), "f") == "f"]
    return any(v.wrong == "values" or (v.wrong == "not finite" and _is_nan_in_places(result, v.name)) for v in wrong)


def _is_nan_in_places(result: Result, name: str) -> bool:
    """Whether a tensor of an answer is NaN in some places and finite in others: the places say something. An infinity
    may be a choice."""
    if result.response is None:
        return False
    kind, _, own = name.removeprefix("gradient ").rpartition(" ")
    x = (result.response.gradients or {} if kind == "of" else result.response.outputs).get(own)
    if not isinstance(x, numpy.ndarray) or x.dtype.kind != "f":
        return False
    return bool(numpy.isnan(x).any()) and bool(numpy.isfinite(x).any())


def telling(results: list[Result]) -> Result:
    """The smallest case that is no degenerate one: a row of one number says little."""
    return next((r for r in results if all(x.size >= 4 for x in r.case.inputs.values())), results[0])


def numbers(response: Response) -> int:
    """How many numbers an answer has that are not whole."""
    arrays = [*response.outputs.values(), *(response.gradients or {}).values()]
    return sum(x.size for x in arrays if getattr(x, "dtype", None) is not None and x.dtype.kind == "f")
