"""Two neighbouring steps of the text in the other order: what a statement does to a value before the next one does
something to it, is done after. `a = f(x);  b = g(a)` becomes `b = f(g(x))`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType

from refllm.verify.edits import Edit, source_of
from refllm.verify.edits.source import Changes, Source

COST = 0.9  # among the likelier edits of the text


@dataclass(frozen=True)
class _Step:
    """A statement that makes one value: its name ("" if it is returned), its expression without the tap around it, and
    the test under which it is made."""

    name: str
    node: ast.Assign | ast.Return
    made: ast.expr
    test: ast.expr | None
    is_pair: bool  # y, _ = f(x)

    @property
    def reads(self) -> list[str]:
        return [n.id for n in ast.walk(self.made) if isinstance(n, ast.Name)]

    def always(self) -> bool:
        return self.test is None


def in_another_order(function: FunctionType) -> Iterator[Edit]:
    text = Source(source_of(function))
    steps = list(_steps(text))
    for n, one in enumerate(steps):
        for other in _readers(steps, n):
            for operand in _operands(one.made):
                changes = _exchanged(text, one, other, operand)
                if changes is not None and not _is_made_between(steps, one, other, operand):
                    yield Edit(function, changes, COST, in_pullback=False, said=_said(one.made, other.made))
    for node in text.expressions():
        words = _nested(text, node)
        if words:
            assert isinstance(node, ast.Call)
            said = _said(_without_tap(node.args[0]), node)
            yield Edit(function, text.exchanged(node, words), COST, in_pullback=False, said=said)


def _said(one: ast.expr, other: ast.expr) -> str:
    """norm comes after turned, before which is right"""
    return f"{_shown(one)} comes after {_shown(other)}, before which is right"


def _shown(made: ast.expr) -> str:
    if isinstance(made, ast.Call):
        return _called(made)
    signs = {ast.Add: "the sum", ast.Mult: "the product", ast.Div: "the quotient", ast.Sub: "the difference"}
    found = signs.get(type(made.op), "") if isinstance(made, ast.BinOp) else ""
    return found or "what is done"


def _steps(text: Source) -> Iterator[_Step]:
    for statement in text.body():
        is_branch = isinstance(statement, ast.If) and not statement.orelse
        inner = statement.body if isinstance(statement, ast.If) and is_branch else [statement]
        for node in inner:
            test = statement.test if isinstance(statement, ast.If) else None
            if isinstance(node, ast.Return) and node.value is not None:
                yield _Step("", node, _without_tap(node.value), test, is_pair=False)
            if isinstance(node, ast.Assign):
                target = node.targets[0]
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                is_pair = len(names) == 2 and isinstance(names[1], ast.Name) and names[1].id == "_"
                if isinstance(names[0], ast.Name) and (len(names) == 1 or is_pair):
                    yield _Step(names[0].id, node, _without_tap(node.value), test, is_pair)


def _without_tap(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tap":
        return node.args[1]
    return node


def _readers(steps: list[_Step], n: int) -> Iterator[_Step]:
    """The next step that reads a value, and those before it that do so where a test says so."""
    for other in steps[n + 1 :]:
        if steps[n].name in other.reads:
            yield other
            if other.always():
                return
        elif other.name == steps[n].name and other.always():
            return


def _is_made_between(steps: list[_Step], one: _Step, other: _Step, operand: ast.expr) -> bool:
    """Whether what the operand reads is another value by then."""
    between = {step.name for step in steps if one.node.lineno < step.node.lineno < other.node.lineno}
    return any(isinstance(n, ast.Name) and n.id in between - {one.name} for n in ast.walk(operand))


def _operands(made: ast.expr) -> Iterator[ast.expr]:
    """What a step is done to."""
    if isinstance(made, ast.Call) and made.args:
        yield _without_tap(made.args[0])
        yield from (
            _without_tap(other) for other in made.args[1:] if isinstance(other, ast.Name | ast.Call | ast.BinOp)
        )
    elif isinstance(made, ast.BinOp):
        for term in (made.left, made.right):
            yield term
            if isinstance(term, ast.BinOp):
                yield from _operands(term)


def _exchanged(text: Source, one: _Step, other: _Step, operand: ast.expr) -> Changes | None:
    """The changes; None where the second step does not read the value of the first once."""
    if other.reads.count(one.name) != 1 or isinstance(other.made, ast.Name):
        return None
    read = next(n for n in ast.walk(other.made) if isinstance(n, ast.Name) and n.id == one.name)
    inner = _with(text, other.made, read, text.segment(operand)) + ("[0]" if other.is_pair else "")
    both = _with(text, one.made, operand, inner) + ("[0]" if one.is_pair else "")
    if other.is_pair:
        both = f"({both}, None)"
    test = one.test if one.test is not other.test else None
    if one.test is None and other.test is not None:
        if one.name in [n.id for n in ast.walk(operand) if isinstance(n, ast.Name)]:
            return None
        return text.exchanged(other.made, both)
    if test is not None:
        both = f"({both} if {text.segment(test)} else {text.segment(other.made)})"
    return (*text.exchanged(one.node, "pass"), *text.exchanged(other.made, both))


def _with(text: Source, whole: ast.expr, part: ast.expr, words: str) -> str:
    """An expression with other words in the place of a part of it."""
    first, last = text.span(whole)
    begin, end = text.span(part)
    before, after = text.encoded[first:begin].decode(), text.encoded[end:last].decode()
    return f"({before}({words}){after})"


def _nested(text: Source, node: ast.expr) -> str:
    """f(g(x, a), b) becomes g(f(x, b), a); "" for anything else."""
    if not isinstance(node, ast.Call) or not node.args:
        return ""
    inner = _without_tap(node.args[0])
    if not isinstance(inner, ast.Call) or not inner.args or "tap" in (_called(node), _called(inner)):
        return ""
    f = _with(text, node, node.args[0], text.segment(inner.args[0]))
    return _with(text, inner, inner.args[0], f) if _called(node) and _called(inner) else ""


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""
