"""How much work a sized case is, to choose among cases."""

from __future__ import annotations

import math

from refllm.verify.sized.cases import SizedCase


def work(case: SizedCase) -> int:
    """Its numbers, and the scores of its attention."""
    shapes = [recipe["shape"] for recipe in case.inputs.values()]
    scores = math.prod(shapes[0][:-1]) * shapes[1][-2] if "attention" in case.operation else 0
    return sum(math.prod(shape) for shape in shapes) + 16 * scores
