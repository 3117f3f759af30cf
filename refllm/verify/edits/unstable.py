"""The same formula in a form that loses digits: what is equal in exact arithmetic and noise in a float."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Changes, Source

NARROW = ("bfloat16", "float16")


def unstable(text: Source) -> Iterator[tuple[Changes, str, str]]:
    """Changes, what they are in words, and what their error grows with."""
    x = text.positional[0] if text.positional else ""
    for node in text.expressions():
        if text.in_pullback(node):
            continue
        words = text.segment(node)
        if isinstance(node, ast.Call):
            yield from _calls(text, node, x)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            left, right = text.segment(node.left), text.segment(node.right)
            for dtype in NARROW:
                product = f'narrow_matmul({left}, {right}, "{dtype}")'
                yield text.exchanged(node, product), f"products added up in {dtype}", "the length of the sum"
        if isinstance(text.parents.get(node), ast.Assign) and isinstance(node, ast.BinOp | ast.Call):
            for dtype in NARROW:
                yield text.exchanged(node, f'rounded({words}, "{dtype}")'), f"a value stored in {dtype}", "its size"
    if text.definition.name == "log_softmax":
        line = f"return log(softmax({x})[0])"
        yield text.with_first_line(line), "the logarithm of a softmax", "the distance from the largest number"


def _calls(text: Source, node: ast.Call, x: str) -> Iterator[tuple[Changes, str, str]]:
    name, arguments = text.segment(node.func), [text.segment(a) for a in node.args]
    if name == "mean" and isinstance(node.args[0], ast.BinOp) and arguments[0].count("*") == 1:
        moments = f"(mean({x} * {x}) - mean({x}) * mean({x}))"
        left, _, right = arguments[0].partition(" * ")
        if left == right != x:
            yield text.exchanged(node, moments), "the variance as E[x²] - E[x]²", "the mean over the deviation"
    if name == "erfc":
        opposite = arguments[0].removeprefix("-")
        words = f"(1 + erf({opposite}))" if opposite != arguments[0] else f"(1 - erf({opposite}))"
        yield text.exchanged(node, words), "1 + erf(x)", "the distance into the tail"
    if name == "top":
        yield text.exchanged(node, "0"), "exponentials without a shift", "the size of the scores"
    if name in ("sum", "mean") and len(arguments) == 1 and not node.keywords:
        for dtype in NARROW:
            narrow = f'narrow_{name}({arguments[0]}, "{dtype}")'
            yield text.exchanged(node, narrow), f"numbers added up in {dtype}", "the length of the sum"
