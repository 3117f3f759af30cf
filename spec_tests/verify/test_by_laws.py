"""A wrong answer that no known mistake explains, and that breaks a law, is explained by the law."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.verify import check, reference
from refllm.verify.checking import Checked

RIGHT = reference.functions()
ODD = 1 + 0.01 * numpy.sin(numpy.arange(1 << 16))  # what no mistake has


TINY = ["LN/rows", "LN/square", "LN/large-eps", "LN/small-eps"]
SMALL = ["LN/kernel-layer-norm-3x1025-normal", "LN/kernel-layer-norm-3x1025-subnormal"]


def odd(y: Any) -> Any:
    return (y * ODD[: y.size].reshape(y.shape)).astype(y.dtype)


def adding() -> Any:
    """A layer norm whose gradient of g is added to that of the calls before."""
    held: dict[tuple[int, ...], Any] = {}

    def layer_norm(x: Any, g: Any, b: Any, *, eps: float) -> Any:
        y, back = RIGHT["layer_norm"](x, g, b, eps=eps)

        def layer_norm_back(dy: Any) -> Any:
            dx, dg, db = back(dy)
            held[g.shape] = dg + held.get(g.shape, 0)
            return dx, held[g.shape].copy(), db

        return y, layer_norm_back

    return layer_norm


def overwriting(x: Any) -> Any:
    y = odd(RIGHT["tanh"](x)[0])
    x[...] = 0
    return y


def lines(found: Checked) -> list[str]:
    return [line for result in found.failures for line in result.diagnosis if result.status == "fail"]


@pytest.mark.parametrize("how", [{"only": TINY}, {"dtype": "float32", "size": "kernel", "only": SMALL}])
def test_what_calls_leave_explains_the_wrong_answers_to_its_operation(how: dict[str, Any]) -> None:
    """Those too whose second calls were not tried, and where the case that was called twice was right at first."""
    found = check(adding(), "layer_norm", values=False, search=0.2, **how)
    assert lines(found)
    assert all(line.startswith(("depends on what earlier calls left: ", "gradient")) for line in lines(found))
    assert "no known mistake" not in repr(found)


@pytest.mark.parametrize("how", [{}, {"dtype": "float32", "size": "kernel"}])
def test_a_law_that_is_broken_is_named_in_the_place_of_unknown_mistakes(how: dict[str, Any]) -> None:
    found = check(overwriting, "tanh", search=0.2, values=True, **how)
    assert len(found.failures) > 2
    for result in (each for each in found.failures if each.status == "fail"):
        assert result.diagnosis[0].startswith("breaks a law, inputs unchanged, which may be the cause"), (
            result.diagnosis
        )
    assert "explained by" not in repr(found)
