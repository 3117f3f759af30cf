"""What may stand in the place of an expression, by its grammar. What is written more often costs less."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

from refllm.verify.edits.rounding import rounded_otherwise
from refllm.verify.edits.source import Source, tight, two_exchanged
from refllm.verify.edits.vocabulary import INFINITIES, alike, keyword_values, taken_for
from refllm.verify.edits.wrapped import is_value, wrapped

OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
SIGNS: dict[type[ast.operator], str] = {**OPERATORS, ast.MatMult: "@"}
FLAGS = ("tied", "scaled_output", "bidirectional", "direct", "scaled_embedding")  # choices of a configuration
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


def alternatives(text: Source, node: ast.expr) -> Iterator[tuple[str, float]]:
    """What may stand in the place of an expression, and what that costs."""
    for kind, of_kind in OF_KINDS:
        if isinstance(node, kind):
            yield from of_kind(text, node)
    if isinstance(node, ast.UnaryOp):
        yield text.segment(node.operand), 1
    elif isinstance(node, ast.BoolOp):
        yield from ((text.segment(value), 1) for value in node.values)
    elif isinstance(node, ast.IfExp):
        yield from ((text.segment(part), 1) for part in (node.body, node.orelse))
        yield " ".join((text.segment(node.orelse), "if", text.segment(node.test), "else", text.segment(node.body))), 1.1
    yield from _with_few_digits(text, node)
    yield from rounded_otherwise(text, node)
    if is_value(text, node):
        yield from wrapped(text, node)


def _attributes(text: Source, node: ast.Attribute) -> Iterator[tuple[str, float]]:
    """A matrix that is not turned; the length of one axis for the number of all entries."""
    whole = text.segment(node.value)
    if node.attr == "T":
        yield whole, 1
    elif node.attr == "size":
        yield from ((f"len({whole})", 1.1), (f"{whole}.shape[-1]", 1.15))


def _flags(text: Source, node: ast.Subscript) -> Iterator[tuple[str, float]]:
    """Of a configuration: the opposite of a choice, another choice, or the opposite of that."""
    key = node.slice.value if isinstance(node.slice, ast.Constant) else None
    if text.segment(node.value) == "config" and key in FLAGS:
        yield f'not config["{key}"]', 1.1
        for other in FLAGS:
            if other != key:
                yield from ((f'{sign}config.get("{other}", False)', 1.2) for sign in ("", "not "))


def _of_some(text: Source, node: ast.ListComp | ast.GeneratorExp) -> Iterator[tuple[str, float]]:
    """Of some of the entries what is meant of all: of matrices, of vectors, of all but the first or the last."""
    each, whole = node.generators[0], text.segment(node)
    if node.generators[1:] or each.ifs or not isinstance(each.target, ast.Name):
        return
    words, name = text.segment(each.iter), each.target.id
    rest = whole[: whole.rindex(words)]
    for other in (f"{words} if {name}.ndim >= 2", f"{words} if {name}.ndim < 2"):
        yield f"{rest}{other}{whole[len(rest) + len(words) :]}", 1.15
    for other in (f"{tight(words)}[1:]", f"{tight(words)}[:-1]"):
        yield f"{rest}{other}{whole[len(rest) + len(words) :]}", 1.25


def _with_few_digits(text: Source, node: ast.expr) -> Iterator[tuple[str, float]]:
    """A number as somebody copied it."""
    if _is_number(text, node) or (isinstance(node, ast.Constant) and isinstance(node.value, float)):
        for n in range(2, 9):
            yield from ((f"{word}({text.segment(node)}, {n})", 1.3) for word in ("digits", "cut_off"))


def _operations(text: Source, node: ast.BinOp) -> Iterator[tuple[str, float]]:
    left, right, kind = text.segment(node.left), text.segment(node.right), type(node.op)
    yield left, 1
    yield right, 1 if kind is ast.Add else 1.2
    if kind is ast.Add and right == "1" and isinstance(text.parents.get(node), ast.Slice):
        yield f"max({left}, 1)", 0.95  # at least one stays
    if kind in OPERATORS:
        a, b = tight(left), tight(right)
        for other, sign in OPERATORS.items():
            if other is not kind:
                yield f"{a} {sign} {b}", 1.2
    if kind in (ast.Sub, ast.Div, ast.MatMult):
        yield f"{tight(right)} {SIGNS[kind]} {tight(left)}", 1.4
    if kind is ast.MatMult:
        yield f"{tight(left)} @ swap({right})", 1.4
        yield f"swap({left}) @ {tight(right)}", 1.4
        yield f"{tight(left)} * {tight(right)}", 1.6
        for dtype in ("float16", "bfloat16"):
            product = f'rounded({left}, "{dtype}") @ rounded({right}, "{dtype}")'
            yield from ((f'rounded({product}, "{dtype}")', 1.4), (product, 1.45))
    if kind in (ast.BitAnd, ast.BitOr):
        yield f"{tight(left)} {'|' if kind is ast.BitAnd else '&'} {tight(right)}", 1
        yield f"{tight(left)} & ~{tight(right)}", 1.3
    if kind is ast.Div:
        yield f"{tight(left)} / sqrt({right})", 1.3
        yield f"{tight(left)} / {tight(right)} / {tight(right)}", 1.4
        for array in text.arrays[:2] if left.startswith(("total(", "sum(")) else ():
            yield from ((f"{tight(left)} / {size}", 1.35) for size in (f"len({array})", f"{array}.size"))
    if kind in (ast.Add, ast.Sub):
        yield from _chosen(text, node)
        yield from _grouped_otherwise(text, node, OPERATORS[kind])
        yield from _without_two_terms(text, node)
        yield from _of_one_variance(text, node)
    yield from _of_one_term(text, node)
    first = node.left
    if kind in SIGNS and isinstance(first, ast.Call) and len(first.args) == 1 and not first.keywords:
        call, argument = text.segment(first.func), text.segment(first.args[0])
        yield f"{call}({argument} {SIGNS[kind]} {tight(right)})", 1.3  # for f(a) + b


def _of_one_variance(text: Source, node: ast.BinOp) -> Iterator[tuple[str, float]]:
    """x + f(x)   becomes   (x + f(x)) / sqrt(2), whose variance is that of its terms."""
    is_residual = isinstance(node.left, ast.Name) and isinstance(node.right, ast.Name | ast.Call)
    if isinstance(node.op, ast.Add) and is_residual and not text.in_pullback(node):
        yield f"({text.segment(node)}) / sqrt(2)", 1.2


def _chosen(text: Source, node: ast.BinOp) -> Iterator[tuple[str, float]]:
    """where(c, a, b) for where(c, a, 0) + b: what all places have, in the others alone, which are one fewer."""
    first, rest = node.left, text.segment(node.right)
    if (
        not isinstance(node.op, ast.Add)
        or not isinstance(first, ast.Call)
        or text.segment(first.func) != "where"
        or len(first.args) != 3
    ):
        return
    mask, a, b = (text.segment(x) for x in first.args)
    if b != "0":
        return
    yield f"where({mask}, {a}, {rest})", 1.2
    fewer = re.sub(r"\b([A-Z])\b", r"(\1 - 1)", rest)
    if fewer != rest:
        yield f"where({mask}, {a}, {fewer})", 1.2


def _without_two_terms(text: Source, node: ast.BinOp) -> Iterator[tuple[str, float]]:
    """a - d for a + b - c - d: an offset that is forgotten."""
    terms, first = list[str](), node
    while isinstance(first, ast.BinOp) and isinstance(first.op, ast.Add | ast.Sub):
        terms.insert(0, f"{OPERATORS[type(first.op)]} {_term(text, first.right)}")
        first = first.left  # type: ignore[assignment]
    terms.insert(0, text.segment(first))
    inner = isinstance(parent := text.parents.get(node), ast.BinOp) and isinstance(parent.op, ast.Add | ast.Sub)
    for n in range(1, len(terms) - 1) if not (inner and parent.left is node) else ():  # type: ignore[union-attr]
        yield " ".join((*terms[:n], *terms[n + 2 :])), 1.05


def _of_one_term(text: Source, node: ast.BinOp) -> Iterator[tuple[str, float]]:
    """a * b + c for a * (b + c): a factor of one term that is one of all."""
    sign = OPERATORS.get(type(node.op), "")
    for whole, factor in ((node.right, node.left), (node.left, node.right)) if sign in ("*", "/") else ():
        first, terms = whole, list[tuple[str, ast.expr]]()
        while isinstance(first, ast.BinOp) and isinstance(first.op, ast.Add | ast.Sub):
            terms.insert(0, (OPERATORS[type(first.op)], first.right))
            first = first.left
        if not terms or (sign == "/" and whole is node.right):
            continue
        words = [_term(text, part) for part in (first, *(term for _, term in terms))]
        by = tight(text.segment(factor))
        for n, word in enumerate(words):
            scaled = f"{by} * {tight(word)}" if whole is node.right else f"{tight(word)} {sign} {by}"
            rest = [scaled if m == n else other for m, other in enumerate(words)]
            yield rest[0] + "".join(f" {op} {part}" for (op, _), part in zip(terms, rest[1:], strict=True)), 1.25


def _term(text: Source, node: ast.expr) -> str:
    """The words of a term of a sum."""
    is_product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div)
    return text.segment(node) if is_product else tight(text.segment(node))


def _grouped_otherwise(text: Source, node: ast.BinOp, sign: str) -> Iterator[tuple[str, float]]:
    """(p - c) * d for p * d - c, and (a + b) * c for a + b * c: another order of two steps, other parentheses."""
    left, right = (_term(text, x) for x in (node.left, node.right))
    for first, rest in ((node.left, right), (node.right, left)):
        if not isinstance(first, ast.BinOp) or not isinstance(first.op, ast.Mult | ast.Div):
            continue
        kind, (a, b) = OPERATORS[type(first.op)], (tight(text.segment(x)) for x in (first.left, first.right))
        one, other = (f"{x} {sign} {rest}" if first is node.left else f"{rest} {sign} {x}" for x in (a, b))
        yield f"({one}) {kind} {b}", 1.3
        if kind == "*":
            yield f"{a} * ({other})", 1.35


def _comparisons(text: Source, node: ast.Compare) -> Iterator[tuple[str, float]]:
    if len(node.ops) != 1 or type(node.ops[0]) not in COMPARISONS:
        return
    yield from ((value, 0.9 if _is_answered(text, node) else 1.1) for value in ("True", "False"))
    left, right = text.segment(node.left), text.segment(node.comparators[0])
    if any(isinstance(x, ast.Constant) and isinstance(x.value, str) for x in (node.left, node.comparators[0])):
        return  # words are equal or not, and none is larger
    for kind, sign in COMPARISONS.items():
        if not isinstance(node.ops[0], kind):
            yield f"{left} {sign} {right}", 1
    for change in ("+ 1", "- 1"):
        yield f"{left} {COMPARISONS[type(node.ops[0])]} {right} {change}", 1.1


def _is_answered(text: Source, node: ast.AST) -> bool:
    """Whether the function returns this comparison."""
    parent = text.parents.get(node)
    return isinstance(parent, ast.Return) or (isinstance(parent, ast.Call) and parent in text.returned())


def _calls(text: Source, node: ast.Call) -> Iterator[tuple[str, float]]:
    name, arguments = text.segment(node.func), [text.segment(a) for a in node.args]
    if text.is_infinity(node):
        yield from ((x, 1.0) for x in INFINITIES)
        return
    keywords = [f"{k.arg}={text.segment(k.value)}" for k in node.keywords]
    if arguments and name not in ("range", "len", "max", "min", "arange"):
        yield arguments[0], 1.5 if isinstance(node.func, ast.Attribute) else 1
    if len(arguments) == 1 and not keywords and name not in ("range", "len", "list", "int"):
        yield f"{name}({name}({arguments[0]}))", 1.5
        inner = node.args[0]
        if isinstance(inner, ast.BinOp) and type(inner.op) in OPERATORS:  # f(a + b): f(a) + b
            a, b, sign = text.segment(inner.left), text.segment(inner.right), OPERATORS[type(inner.op)]
            yield f"{name}({a}) {sign} {tight(b)}", 1.2
            yield f"{tight(a)} {sign} {name}({b})", 1.4
    for swapped in two_exchanged(arguments):
        yield f"{name}({', '.join([*swapped, *keywords])})", 1.2
    yield from ((f"{other}({', '.join([*arguments, *keywords])})", 1.3) for other in alike(name))
    if isinstance(node.func, ast.Attribute) and node.func.attr == "sum" and not arguments:
        yield f"{text.segment(node.func.value)}.size", 1.1
    if isinstance(node.func, ast.Attribute) and node.func.attr == "swapaxes":
        yield f"reshaped({', '.join([text.segment(node.func.value), *arguments])})", 1.1
    if name in ("concatenate", "stack") and _is_list(arguments[0]):
        yield f"{name}({', '.join([f'{arguments[0]}[::-1]', *keywords])})", 1.25
    yield from taken_for(text, name, arguments, keywords)
    for n, keyword in enumerate(node.keywords):
        kept = [k for m, k in enumerate(keywords) if m != n]
        for value in keyword_values(keyword.arg or "", text.segment(keyword.value)):
            yield f"{name}({', '.join([*arguments, *kept, f'{keyword.arg}={value}'])})", 1.1


def _is_list(words: str) -> bool:
    """Whether this is a list that stands there as such."""
    return words.startswith("[") and words.endswith("]")


def _constants(text: Source, node: ast.Constant) -> Iterator[tuple[str, float]]:
    value = node.value
    if isinstance(value, bool):
        yield str(not value), 1
    elif isinstance(value, int | float):
        others = [value + 1, value - 1, -value, 2 * value, 0, 1, 10 * value, value / 10]
        others += [value / 2] if isinstance(value, float) or value % 2 else [value // 2]
        if _is_place(text, node):
            others = [value + 1, value - 1, -value, 2 * value, 0, 1]
        yield from ((repr(x), 1.1) for x in others if x != value)


def _is_place(text: Source, node: ast.AST) -> bool:
    """Whether a number is an axis, or a place or a border of a list."""
    parent = text.parents.get(node)
    while isinstance(parent, ast.UnaryOp | ast.Tuple | ast.BinOp):
        parent = text.parents.get(parent)
    return isinstance(parent, ast.Subscript | ast.Slice) or (isinstance(parent, ast.keyword) and parent.arg == "axis")


def _names(text: Source, node: ast.Name) -> Iterator[tuple[str, float]]:
    parent = text.parents[node]
    if isinstance(parent, ast.Call) and node is parent.func:
        return
    place = 1.4 if isinstance(parent, ast.Attribute) else 1.1
    for other in text.in_scope(node):
        if other != node.id:
            yield other, place
    if len(node.id) == 1 and node.id.isupper() and text.positional:  # a dimension
        for array in text.positional[:3]:
            yield from ((f"{array}.shape[{axis}]", 1.4) for axis in (-1, -2, -3))
            yield from ((f"({node.id} * {array}.shape[{axis}])", 1.5) for axis in (-1, -2, -3))
        if isinstance(parent, ast.BinOp):
            yield from ((f"({node.id} {change})", 1.25) for change in ("- 1", "+ 1"))
    if isinstance(parent, ast.BinOp):
        yield from ((f"({node.id} {change})", 1.25) for change in ("- 1", "+ 1") if node.id in text.whole)
        dimensions = [name for name in text.in_scope(node) if len(name) == 1 and name.isupper()]
        sizes = dimensions[:2] or [f"{array}.shape[-1]" for array in text.arrays[:1]]
        for size in sizes if node.id in text.real else ():
            yield from ((f"({node.id} {sign} {size})", 1.31) for sign in "/*")
        for keyword in text.keywords:
            yield from ((f"((1 - {keyword}) * {node.id})", 1.4), (f"({keyword} * {node.id})", 1.5))
    if isinstance(parent, ast.Subscript) and node is parent.slice and text.in_pullback(node):
        yield from ((f"{node.id} {change}", 1.15) for change in ("+ 1", "- 1"))
    if node.id in _cotangents(text) and place == 1.1:
        yield f"({node.id} * 0 + 1)", 1.1
        yield from ((f"{word}({node.id})", 1.2) for word in ("first_of_all", "mean_of_all"))
        yield from ((f"{node.id} {change}", 1.15) for change in ("/ 2", "* 2"))
    if _counts(text, node):
        yield from ((f"{node.id} {change}", 1.1) for change in ("+ 1", "- 1", "+ 2", "- 2", "// 2", "* 2"))


def _tuples(text: Source, node: ast.Tuple) -> Iterator[tuple[str, float]]:
    parts = [text.segment(x) for x in node.elts]
    if isinstance(text.parents[node], ast.Subscript | ast.Assign) and node not in text.returned():
        return
    yield from ((", ".join(swapped), 1.3) for swapped in two_exchanged(parts))


def _is_number(text: Source, node: ast.expr) -> bool:
    """Whether this is computed from numbers that stand in the text alone, and is none of them."""
    names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    there = any(isinstance(n, ast.Constant) for n in ast.walk(node))
    return there and set(names) <= {"sqrt", "pi", "log", "ratio"} and isinstance(node, ast.Call | ast.BinOp)


def _cotangents(text: Source) -> set[str]:
    return {a.arg for f in text.inner for a in f.args.args}


def _counts(text: Source, node: ast.AST) -> bool:
    """Whether this is a whole number that counts or limits something."""
    if isinstance(node, ast.Name) and node.id in text.real:
        return False
    parent = text.parents.get(node)
    while isinstance(parent, ast.BinOp):
        node, parent = parent, text.parents.get(parent)
    if isinstance(parent, ast.Call):
        return isinstance(parent.func, ast.Name) and parent.func.id in ("arange", "range", "ratio", "power")
    words = [x for x in ast.walk(parent) if isinstance(x, ast.Constant) and isinstance(x.value, str)] if parent else []
    return isinstance(parent, ast.Slice | ast.Compare) and not words


OF_KINDS: tuple[tuple[type[ast.expr], Callable[[Source, Any], Iterator[tuple[str, float]]]], ...] = (
    (ast.BinOp, _operations),
    (ast.Compare, _comparisons),
    (ast.Call, _calls),
    (ast.Constant, _constants),
    (ast.Name, _names),
    (ast.Attribute, _attributes),
    (ast.Subscript, _flags),
    (ast.Tuple, _tuples),
    (ast.ListComp, _of_some),
    (ast.GeneratorExp, _of_some),
)
