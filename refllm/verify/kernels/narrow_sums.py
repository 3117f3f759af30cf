"""A sum or a product of the text in an accumulator of a narrow type, or of terms that were stored in one, and a value
that the gradient reads in one: on the way forward, or in the gradient alone.

    for cause in narrow_sums("log_softmax"):    … whose gradient adds up sum(dy) in bfloat16, rounded after every number

Which sums there are follows from the lines of the text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from refllm.verify.edits.source import Changes, Source, calls_of
from refllm.verify.kernels.in_text import InText, Lines, in_text
from refllm.verify.stored import WHOLE

TYPES = ("bfloat16", "float16")
AT_ONCE = (1, WHOLE, 8, 16, 32, 4, 64, 128, 256)  # numbers that are added up before the sum is stored
PRODUCTS = (8, 16, 32, WHOLE, 64, 128, 4, 256, 1)
SUMS = {"sum": "stored_sum", "mean": "stored_mean", "rows": "stored_rows", "total": "stored_total"}
BEYOND = "float16, whose numbers end at 65,504"


@dataclass(frozen=True, eq=False)
class Narrow(InText):
    narrows: bool = True
    of_digits: bool = True  # it explains nothing but lost digits
    pointwise: bool = True  # errors of the same size are other ones


@dataclass(frozen=True, eq=False)
class NarrowInGradient(Narrow):
    gradients_alone: bool = True


@dataclass(frozen=True, eq=False)
class Overflown(InText):
    """What loses more than digits: numbers beyond the range of the type."""

    narrows: bool = True
    pointwise: bool = True


@dataclass(frozen=True, eq=False)
class OverflownInGradient(Overflown):
    gradients_alone: bool = True


def overflows(operation: str) -> Iterator[InText]:
    """Those that make infinities of large numbers."""
    yield from in_text(operation, lambda text: _beyond(text, in_pullback=False), Overflown, in_pullback=False)
    yield from in_text(operation, lambda text: _beyond(text, in_pullback=True), OverflownInGradient, in_pullback=True)


def narrow_sums(operation: str) -> Iterator[InText]:
    yield from in_text(operation, lambda text: _lines(text, in_pullback=True), NarrowInGradient, in_pullback=True)
    yield from in_text(operation, lambda text: _lines(text, in_pullback=False), Narrow, in_pullback=False)


def _beyond(text: Source, *, in_pullback: bool) -> Iterator[Lines]:
    whose = "whose gradient" if in_pullback else "that"
    for call in _sums(text, in_pullback=in_pullback):
        said, term = text.segment(call), text.segment(call.args[0])
        if not isinstance(call.args[0], ast.Name):
            changes = text.exchanged(call.args[0], f'stored({term}, "float16")')
            yield Lines(f"{whose} takes {said} of terms that are stored in {BEYOND}", "terms-in-float16", changes)
        for n in (1, WHOLE):
            about = f"{whose} adds up {said} in {BEYOND}{_rounded(n, 'number')}"
            yield Lines(about, "sum-in-float16", text.exchanged(call, _stored_sum(text, call, term, "float16", n)))


def _lines(text: Source, *, in_pullback: bool) -> Iterator[Lines]:
    whose = "whose gradient" if in_pullback else "that"
    for call in _sums(text, in_pullback=in_pullback):
        said, term = text.segment(call), text.segment(call.args[0])
        for dtype in TYPES:
            narrow = f'stored({term}, "{dtype}")'
            yield Lines(
                f"{whose} takes {said} of terms that are stored in {dtype}", f"terms-in-{dtype}",
                text.exchanged(call.args[0], narrow),
            )  # fmt: skip
            for n in AT_ONCE:
                about = f"{whose} adds up {said} in {dtype}{_rounded(n, 'number')}"
                changes = text.exchanged(call, _stored_sum(text, call, term, dtype, n))
                yield Lines(about, f"sum-in-{dtype}", changes)
                if not isinstance(call.args[0], ast.Name):
                    changes = text.exchanged(call, _stored_sum(text, call, narrow, dtype, n))
                    yield Lines(f"{about}, of terms that are stored so too", f"sum-and-terms-in-{dtype}", changes)
    yield from _of_scattered(text, whose, in_pullback=in_pullback)
    yield from _of_products(text, whose, in_pullback=in_pullback)
    if in_pullback:
        yield from _of_kept(text)


def _rounded(n: int, what: str) -> str:
    """After how many terms a sum is rounded, in words."""
    if n == WHOLE:
        return ", rounded when it is whole"
    return f", rounded after every {what}" if n == 1 else f", rounded after every {n} {what}s"


def _stored_sum(text: Source, call: ast.Call, term: str, dtype: str, n: int) -> str:
    more = "".join(f", {k.arg}={text.segment(k.value)}" for k in call.keywords)
    return f'{SUMS[text.segment(call.func)]}({term}, "{dtype}", {n}{more})'


def _sums(text: Source, *, in_pullback: bool) -> list[ast.Call]:
    calls = [call for call in calls_of(text, *SUMS) if len(call.args) == 1 and text.in_pullback(call) is in_pullback]
    return [call for call in calls if not isinstance(call.args[0], ast.GeneratorExp | ast.ListComp)]


def _of_scattered(text: Source, whose: str, *, in_pullback: bool) -> Iterator[Lines]:
    for call in calls_of(text, "scatter_add"):
        if text.in_pullback(call) is in_pullback:
            arguments = ", ".join(text.segment(a) for a in call.args)
            for dtype in TYPES:
                about = f"{whose} adds up {text.segment(call)} in {dtype}, rounded after every row"
                changes = text.exchanged(call, f'stored_scatter_add({arguments}, "{dtype}")')
                yield Lines(about, f"sum-in-{dtype}", changes)


def _of_products(text: Source, whose: str, *, in_pullback: bool) -> Iterator[Lines]:
    for node in text.expressions():
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)):
            continue
        if text.in_pullback(node) is not in_pullback:
            continue
        said, left, right = (text.segment(part) for part in (node, node.left, node.right))
        for dtype in TYPES:
            stored = f'stored({left}, "{dtype}") @ stored({right}, "{dtype}")'
            about = f"{whose} takes {said} of factors that are stored in {dtype}"
            yield Lines(about, f"factors-in-{dtype}", text.exchanged(node, stored))
            for n in PRODUCTS:
                for parts in (False, True) if n != WHOLE else (False,):
                    as_well = ", as their sum is before it is added" if parts else ""
                    about = f"{whose} adds up {said} in {dtype}{_rounded(n, 'product')}{as_well}"
                    new = f'stored_matmul({left}, {right}, "{dtype}", {n}, {parts})'
                    yield Lines(about, f"product-in-{dtype}", text.exchanged(node, new))


def _of_kept(text: Source) -> Iterator[Lines]:
    """What the gradient reads in a narrow type: the values that are kept for it, and what it gives a name."""
    for inner in text.inner:
        if not inner.name.endswith("_back"):
            continue
        nodes = [n for n in ast.walk(inner) if isinstance(n, ast.Name)]
        own = {n.id for n in nodes if isinstance(n.ctx, ast.Store)} | {a.arg for a in inner.args.args}
        called = {id(n.func) for n in ast.walk(inner) if isinstance(n, ast.Call)}
        inside = [n for n in nodes if isinstance(n.ctx, ast.Load) and id(n) not in called and _is_read(text, n)]
        names = dict.fromkeys(n.id for n in inside if not n.id.endswith("_back") and not n.id.isupper())
        for name in names:
            if not (name in own or name in text.positional or _is_assigned(text, name)):
                continue
            read: list[ast.expr] = [n for n in inside if n.id == name]
            for dtype in TYPES:
                changes: Changes = text.all_exchanged(read, f'stored({name}, "{dtype}")')
                yield Lines(f"whose gradient reads {name} as it is stored in {dtype}", f"{name}-in-{dtype}", changes)


def _is_read(text: Source, node: ast.Name) -> bool:
    """Whether the numbers of an array are read, and not its shape or its length."""
    parent = text.parents.get(node)
    shape = isinstance(parent, ast.Attribute) and parent.attr in ("shape", "size")
    length = isinstance(parent, ast.Call) and text.segment(parent.func) in ("len", "zeros", "range")
    return not shape and not length and not isinstance(parent, ast.Subscript)


def _is_assigned(text: Source, name: str) -> bool:
    return any(
        isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store) for n in ast.walk(text.definition)
    )
