"""A factor that belongs to one use of a tensor, or to one term, and stands in another too."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Iterator
from types import FunctionType

from refllm.verify.edits.source import Habit, Source, is_atom

SCALES = (ast.Mult, ast.Div)


def scaled_elsewhere(text: Source, function: FunctionType) -> Iterator[Habit]:
    """A factor that belongs to one use of a tensor, and the gradient of another use scaled by it."""
    gradients = [
        node for f in text.inner if f.name.endswith("_back") for node in ast.walk(f)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id.startswith("d")
        and isinstance(text.parents.get(node), ast.Call | ast.Dict | ast.Tuple)
    ]  # fmt: skip
    if not gradients:
        return
    for factor, where, sign in _factors(text, function):
        for node in gradients:
            for operator in dict.fromkeys((sign, "*" if sign == "/" else "/")):
                new = f"{node.id} {operator} {factor} if {where} else {node.id}"
                said = f"the factor {factor} of another place is in the gradient {node.id} too"
                yield text.exchanged(node, new), 0.95 + 0.2 * (operator != sign), True, said


def factors_of_another_term(text: Source, function: FunctionType) -> Iterator[Habit]:
    """lr * change / (1 - c), lr * decay   becomes   lr / (1 - c) * decay: what corrects one term corrects another."""
    scalars = _numbers(text.definition)
    known = dict.fromkeys(_factors_of_numbers(text.definition, {name: name for name in scalars}))
    for tree, given in _helpers(text, function):
        known |= dict.fromkeys(_factors_of_numbers(tree, {n: w for n, w in given.items() if w in scalars}))
    pairs = [f"sqrt({b}) / {a}" for a in known for b in known if a != b]
    for name, whole in _first_numbers(text, scalars):
        for factor in known:
            if factor not in whole:
                for sign, cost in (("/", 1.2), ("*", 1.3)):
                    said = f"`{factor}`, which belongs to another term, is in this one too"
                    yield text.exchanged(name, f"{name.id} {sign} {factor}"), cost, text.in_pullback(name), said
        for pair in pairs:
            said = f"`{pair}`, which belongs to another term, is in this one too"
            yield text.exchanged(name, f"{name.id} * {pair}"), 1.35, text.in_pullback(name), said


def _numbers(tree: ast.FunctionDef) -> list[str]:
    """The arguments that are single numbers."""
    given = (*tree.args.args, *tree.args.kwonlyargs)
    return [a.arg for a in given if isinstance(a.annotation, ast.Name) and a.annotation.id in ("int", "float")]


def _factors_of_numbers(tree: ast.FunctionDef, given: dict[str, str]) -> Iterator[str]:
    """What a function multiplies or divides by that is computed from single numbers alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, SCALES):
            for part in (node.left, node.right):
                is_computed = isinstance(part, ast.BinOp | ast.Call)
                words = _put(part, given) if is_computed and not isinstance(part, ast.Constant) else None
                if words is not None and any(isinstance(n, ast.Name) and n.id in given for n in ast.walk(part)):
                    yield words if is_atom(words) else f"({words})"


def _first_numbers(text: Source, scalars: list[str]) -> Iterator[tuple[ast.Name, str]]:
    """The first single number of every product, and the words of the product."""
    for node in text.expressions():
        if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult) or text.in_pullback(node):
            continue
        parent = text.parents.get(node)
        if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mult):
            continue
        inner = [n for n in (node.left, node.right) if isinstance(n, ast.Name) and n.id in scalars]
        yield from ((name, text.segment(node)) for name in inner[:1])


def _factors(text: Source, function: FunctionType) -> Iterator[tuple[str, str, str]]:
    """factor, where, sign: of "x * factor if where else x" in this function, and in those that it calls."""
    own = [*text.positional, *text.keywords]
    found = dict.fromkeys(_conditional_factors(text.definition, {name: name for name in own}))
    for tree, given in _helpers(text, function):
        found |= dict.fromkeys(_conditional_factors(tree, given))
    yield from found


def _helpers(text: Source, function: FunctionType) -> Iterator[tuple[ast.FunctionDef, dict[str, str]]]:
    """The functions of the text that are called here, and what is given for their arguments, at each call."""
    for call in [node for node in ast.walk(text.definition) if isinstance(node, ast.Call)]:
        other = function.__globals__.get(call.func.id) if isinstance(call.func, ast.Name) else None
        if not isinstance(other, FunctionType) or not other.__module__.startswith("refllm.spec"):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(other))).body[0]
        if isinstance(tree, ast.FunctionDef):
            given = dict(zip([a.arg for a in tree.args.args], [text.segment(a) for a in call.args], strict=False))
            yield tree, given | {k.arg: text.segment(k.value) for k in call.keywords if k.arg}


def _conditional_factors(tree: ast.FunctionDef, given: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    known = {**given}
    for node in tree.body:
        for name, value in _assigned(node):
            words = _put(value, known)
            known |= {name: words} if words is not None and name not in given else {}
    for inner in ast.walk(tree):
        if not isinstance(inner, ast.IfExp) or not isinstance(inner.body, ast.BinOp):
            continue
        scaled = inner.body
        if isinstance(scaled.op, SCALES) and ast.unparse(scaled.left) == ast.unparse(inner.orelse):
            factor, where = _put(scaled.right, known), _put(inner.test, known)
            if factor is not None and where is not None:
                yield (
                    factor if is_atom(factor) else f"({factor})",
                    where,
                    "*" if isinstance(scaled.op, ast.Mult) else "/",
                )


def _assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """The names that a statement gives to single expressions."""
    if not isinstance(node, ast.Assign):
        return
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        yield from ((t.id, v) for t, v in zip(target.elts, value.elts, strict=False) if isinstance(t, ast.Name))


def _put(node: ast.expr, known: dict[str, str]) -> str | None:
    """An expression in the words of another function; None if it has a name that is none of these."""
    tree = ast.parse(ast.unparse(node), mode="eval")
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - called - set(dir(builtins))
    if not names <= known.keys():
        return None
    body = _Put(known).visit(tree).body
    return ast.unparse(body).replace("'", '"')


class _Put(ast.NodeTransformer):
    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.parse(self.known[node.id], mode="eval").body if node.id in self.known else node
