"""Something done to the whole of a value: a factor, another number format, a gradient that is cut off."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Source, tight

# the words whose arguments are numbers to which something may be done
OF_NUMBERS = {"power", "sin", "cos", "exp", "log", "sqrt", "tanh", "_tanh", "sigmoid", "erfc", "turn", "softmax"}


def wrapped(text: Source, node: ast.expr) -> Iterator[tuple[str, float]]:
    """Something done to a value that nothing should be done to."""
    if _gives_a_pullback(text, node):
        return
    e, whole = text.segment(node), tight(text.segment(node))
    one = 1.05 if "arange(" in e else 1.5
    yield from ((f"{whole} {change}", one) for change in ("- 1", "+ 1"))
    for other in (f"-{whole}", f"{whole} * 2", f"{whole} / 2", f"1 / {whole}"):
        yield other, 1.5
    for other in (f"{whole} * {whole}", f"sqrt({e})", f"swap({e})", f"{whole} * 0", f"exp({e})", f"log({e})"):
        yield other, 1.6
    if isinstance(parent := text.parents.get(node), ast.Call) and text.segment(parent.func) in ("sin", "cos", "turn"):
        yield f"{whole} * pi() / 180", 1.5
    for dtype in ("bfloat16", "float16", "float32"):
        yield f'rounded({e}, "{dtype}")', 1.45
    if not text.in_pullback(node):
        yield f"constant({e})", 1.4
    if isinstance(node, ast.Call):
        yield from _of_calls(text, node)
    if node in text.returned() or text.in_pullback(node):
        for size in _sizes(text):
            yield f"{whole} / {size}", 1.4
            yield from ((f"{whole} * {size}", 1.5), (f"{whole} * sqrt({size})", 1.5), (f"{whole} / sqrt({size})", 1.5))


def _of_calls(text: Source, node: ast.Call) -> Iterator[tuple[str, float]]:
    """The mean over a list for its sum; gradients that add up from step to step."""
    words = text.segment(node)
    if len(node.args) == 1 and isinstance(node.args[0], ast.Name) and node in text.returned():
        yield f"{words} / len({text.segment(node.args[0])})", 1.3
    if text.segment(node.func).endswith("_back") and not text.in_pullback(node):
        yield f"accumulated({words})", 1.3


def _gives_a_pullback(text: Source, node: ast.AST) -> bool:
    parent = text.parents.get(node)
    return isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Tuple)


def is_value(text: Source, node: ast.expr) -> bool:
    """Whether something may be done to the whole of this: what is assigned, returned, divided by, or a gradient."""
    parent = text.parents.get(node)
    if isinstance(node, ast.Tuple | ast.Lambda | ast.List | ast.Dict | ast.ListComp):
        return False
    if isinstance(parent, ast.Assign | ast.Dict):
        return True
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Div) and node is parent.right:
        return True
    if isinstance(parent, ast.Call) and node in parent.args:
        return text.segment(parent.func) in OF_NUMBERS
    return node in text.returned()


def _sizes(text: Source) -> list[str]:
    arrays = text.arrays[:3]
    return [f"{name}.shape[{axis}]" for name in arrays for axis in (-1, 0)] + [
        f"len(flat({name}))" for name in arrays[:1]
    ]
