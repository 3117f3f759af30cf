"""A mask that holds in one place and not in another: in one of two slices, in one statement, in a sum alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Changes, Habit, Source, calls_of, is_atom, tight

SLICES = [(axis, place) for axis in (-2, -1, -3) for place in (0, 1)]
ORDINALS = ("first", "second")


def in_one_slice(text: Source) -> Iterator[Habit]:
    """where(mask, x, y)   becomes   a choice in the starts alone, and none in the ends"""
    for call in calls_of(text, "where"):
        mask, x = call.args[0], call.args[1]
        if len(call.args) != 3 or not isinstance(x, ast.Name) or text.in_pullback(call):
            continue
        for axis, place in SLICES:
            words = f"in_slice({text.segment(mask)}, {text.segment(x)}, {axis}, {place})"
            said = f"the mask holds in the {ORDINALS[place]} slice along axis {axis} alone"
            yield text.exchanged(mask, words), 1.2, False, said


def of_every_place(text: Source) -> Iterator[Habit]:
    """One statement as if nothing were masked: its sum, its count, or both, where others go by the mask."""
    for defined, argument, of_all in _masks(text):
        name = _target(defined)
        counts = {
            _target(s): _put(text, s.value, name, of_all)
            for s in statements(text)
            if isinstance(s, ast.Assign) and _target(s) and f"{name}.sum(" in text.segment(s.value)
        }
        for statement in statements(text):
            if statement.lineno <= defined.lineno:
                continue
            own = _target(statement)
            sums = _read(text, statement, {name: of_all})
            divisors = _read(text, statement, {count: words for count, words in counts.items() if count != own})
            what, inside = _named(text, statement), text.in_pullback(statement)
            for changes, verb in (
                (sums, "takes every place"), (divisors, "is divided by the number of all places"),
                ((*sums, *divisors) if sums and divisors else (), "takes every place"),
            ):  # fmt: skip
                if changes:
                    yield changes, 1.15, inside, f"{what} {verb}, those too that `{argument}` leaves out"


def _masks(text: Source) -> Iterator[tuple[ast.Assign, str, str]]:
    """mask = everywhere(shape) if given is None else given: the statement, `given`, and the mask where nothing is."""
    for statement in statements(text):
        if not isinstance(statement, ast.Assign) or not _target(statement):
            continue
        for node in ast.walk(statement.value):
            test = node.test if isinstance(node, ast.IfExp) else None
            if isinstance(node, ast.IfExp) and isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is):
                whole, (first, last) = text.segment(statement.value).encode(), text.span(node)
                start = text.span(statement.value)[0]
                words = whole[: first - start] + text.segment(node.body).encode() + whole[last - start :]
                yield statement, text.segment(test.left), _without_parentheses(words.decode())


def _target(statement: ast.AST) -> str:
    """The one name that a statement gives a value."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    return target.id if isinstance(target, ast.Name) else ""


def _without_parentheses(words: str) -> str:
    return ast.unparse(ast.parse(words, mode="eval")).replace("'", '"')


def _named(text: Source, statement: ast.stmt) -> str:
    """What a statement makes, in words."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    first = target.elts[0] if isinstance(target, ast.Tuple) else target
    if first is not None:
        return f"`{text.segment(first)}`"
    return "the gradient that is returned" if text.in_pullback(statement) else "what is returned"


def _put(text: Source, value: ast.expr, name: str, words: str) -> str:
    """The words of an expression with others in the place of a name."""
    whole, start = text.segment(value).encode(), text.span(value)[0]
    places = [text.span(n) for n in ast.walk(value) if isinstance(n, ast.Name) and n.id == name]
    for first, last in sorted(places, reverse=True):
        whole = whole[: first - start] + tight(words).encode() + whole[last - start :]
    return whole.decode()


def _read(text: Source, statement: ast.stmt, known: dict[str, str]) -> Changes:
    """Each of these names in the words that it is known by; a choice that goes by a mask is no choice."""
    found: list[tuple[int, int, str]] = []
    value = getattr(statement, "value", None)
    for node in ast.walk(value) if value is not None else ():
        if not isinstance(node, ast.Name) or node.id not in known:
            continue
        call = _choice(text, node)
        if call is None:
            found.extend(text.exchanged(node, known[node.id]))
            continue
        (first, last), (begin, end) = text.span(call), text.span(call.args[1])
        within = isinstance(text.parents.get(call), ast.BinOp | ast.UnaryOp | ast.Subscript | ast.Attribute)
        apart = within and not is_atom(text.segment(call.args[1]))
        found += [(first, begin, "(" * apart), (end, last, ")" * apart)]
    return tuple(found)


def _choice(text: Source, mask: ast.expr) -> ast.Call | None:
    """where(mask, x, y), or where(mask[..., None], x, y)"""
    node = mask
    while isinstance(text.parents.get(node), ast.Subscript) and text.parents[node].value is node:  # type: ignore[attr-defined]
        node = text.parents[node]  # type: ignore[assignment]
    call = text.parents.get(node)
    is_choice = isinstance(call, ast.Call) and text.segment(call.func) == "where" and len(call.args) == 3
    return call if is_choice and call.args[0] is node else None  # type: ignore[union-attr, return-value]
