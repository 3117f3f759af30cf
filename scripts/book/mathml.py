"""TeX to MathML, when the book is built: a browser needs no script for it."""

from __future__ import annotations

from functools import cache
from typing import Any

MACROS = {
    "d": r"\mathrm{d}",  # \d x: the gradient of the loss with respect to x
    "T": r"^{\top}",  # x\T: transposed
    "softmax": r"\operatorname{softmax}",
    "mean": r"\operatorname{mean}",
    "var": r"\operatorname{var}",
    "back": r"\operatorname{back}",
}


@cache
def _converter() -> Any:
    import math_core

    return math_core.LatexToMathML(macros=MACROS, fancy_error=False)


def mathml(tex: str, *, display: bool) -> str:
    """ValueError says what of it is no TeX."""
    try:
        return _converter().convert_with_local_state(tex.strip(), displaystyle=display)
    except Exception as error:  # of a type that the compiled module makes
        raise ValueError(f"{str(error).strip()} in the formula {tex.strip()}") from None
