"""Edits that are one habit and several words: a rule by the names of tensors, a state that is carried on, a mask or a
factor in one of its places, a part of a batch for all of it."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Iterator
from types import FunctionType

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Changes, Source, is_atom

Habit = tuple[Changes, float, bool]

# what a rule by names leaves out: tables, then kinds of parameters
NAMES = (
    ('"token"',), ('"position"',), ('"head"',), ('"relative"',), ('"segment"',), ('"token"', '"position"'),
    ('"token"', '"head"'), ('"token"', '"position"', '"segment"'), ('"token"', '"position"', '"head"'),
    ('"token"', '"relative"'), ('"norm*"',), ('"b*"',), ('"W*"',), ('"norm*"', '"b*"'),
)  # fmt: skip
OVER_ROWS = ("rows", "flat", "scatter_add", "sum", "total")  # words that add up over the texts of a batch
SCALES = (ast.Mult, ast.Div)


def habits(text: Source, function: FunctionType) -> Iterator[Habit]:
    """Changes, cost, and whether they are in the pullback."""
    yield from _by_name(text)
    yield from _carried_on(text)
    yield from _counted_after_the_filter(text)
    yield from _of_one_text(text)
    yield from _kept_after_the_work(text)
    yield from _scaled_elsewhere(text, function)
    yield from _mask_forgotten(text)


def _calls(text: Source, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(text.definition):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


# --- names of tensors ------------------------------------------------------------------------------------------------


def _by_name(text: Source) -> Iterator[Habit]:
    """What is done to every tensor of a tree, left out for some names."""
    inner = {f.name: f for f in text.inner}
    for call in _calls(text, "each"):
        f = inner.get(call.args[0].id) if isinstance(call.args[0], ast.Name) else None
        for node in ast.walk(f) if f is not None else ():
            for words, cost in _for_some_names(text, node):
                yield (*text.exchanged(call.func, "each_named"), *text.exchanged(node, words)), cost, False


def _for_some_names(text: Source, node: ast.AST) -> Iterator[tuple[str, float]]:
    old = text.segment(node) if isinstance(node, ast.Compare | ast.Name) else ""
    for names in NAMES:
        called = f"named({', '.join(names)})"
        if isinstance(node, ast.Compare):
            yield f"{old} and not {called}", 0.9
            yield from ((words, 1.15) for words in (f"{old} or {called}", called, f"not {called}"))
        elif isinstance(text.parents.get(node), ast.keyword) and not names[1:]:
            yield f"0 if {called} else {old}", 1.15


# --- states ----------------------------------------------------------------------------------------------------------


def _carried_on(text: Source) -> Iterator[Habit]:
    """A recurrence that begins with the state that the one before it left."""
    calls = list(_calls(text, "rnn", "lstm", "gru"))
    for n, group in enumerate([calls, *([call] for call in calls if calls[1:])]):
        for words in ("carried", "carried_apart"):
            changes = [change for call in group for change in _around(text, call, words)]
            if changes:
                yield tuple(changes), 1.15 + 0.1 * (n > 0), False


def _around(text: Source, call: ast.Call, words: str) -> Changes:
    return text.exchanged(call.func, f"{words}({text.segment(call.func)})")


# --- filters ---------------------------------------------------------------------------------------------------------


def _counted_after_the_filter(text: Source) -> Iterator[Habit]:
    """What is counted of all tokens, counted of those that found a place."""
    if "capacity" not in text.keywords or not list(_calls(text, "slots_of")):
        return
    experts = [text.segment(k.value) for call in _calls(text, "slots_of") for k in call.keywords if k.arg == "experts"]
    for call in [node for node in ast.walk(text.definition) if isinstance(node, ast.Call)]:
        for keyword in call.keywords:
            placed = f"slots < {experts[0]} * capacity"
            later = text.segment(call.func) != "slots_of"
            if keyword.arg == "chosen" and later:
                yield text.exchanged(keyword.value, f"where({placed}, {text.segment(keyword.value)}, -1)"), 1.2, False
            elif keyword.arg == "token_mask" and later:
                yield text.exchanged(keyword.value, placed), 1.2, False


# --- one text of a batch ---------------------------------------------------------------------------------------------


def _of_one_text(text: Source) -> Iterator[Habit]:
    """A gradient that is a sum over the batch, taken from one text."""
    for call in _calls(text, *OVER_ROWS):
        for argument in call.args:
            if text.in_pullback(argument) and isinstance(argument, ast.Name) and argument.id.startswith("d"):
                for which in ("first_text", "last_text"):
                    yield text.exchanged(argument, f"{which}({argument.id})"), 1.1, True


# --- what is kept ----------------------------------------------------------------------------------------------------


def _kept_after_the_work(text: Source) -> Iterator[Habit]:
    """k is worked on and kept: kept and worked on, or both, whether what comes out is what is kept or not."""
    for statement in statements(text):
        value = getattr(statement, "value", None)
        if not isinstance(statement, ast.Assign) or not isinstance(value, ast.Call):
            continue
        if text.segment(value.func) != "with_kept":
            continue
        for before in statements(text):
            yield from _worked_on(text, before, statement, value)


def _worked_on(text: Source, before: ast.stmt, statement: ast.stmt, keeping: ast.Call) -> Iterator[Habit]:
    work = before.value if isinstance(before, ast.Assign) else None
    if not (isinstance(work, ast.Call) and isinstance(before, ast.Assign) and isinstance(before.targets[0], ast.Tuple)):
        return
    name = text.segment(before.targets[0].elts[0])
    places = [text.segment(a) for a in keeping.args]
    if name not in places or before.lineno > statement.lineno or "positions" not in [k.arg for k in work.keywords]:
        return
    lead, at = " " * statement.col_offset, text.offsets[statement.end_lineno or statement.lineno]
    rest = "".join(f", {text.segment(a)}" for a in work.args[1:])
    rest += "".join(
        f", {k.arg}={f'arange({name}.shape[-2])' if k.arg == 'positions' else text.segment(k.value)}"
        for k in work.keywords
    )
    again = f"{lead}{name}, _ = {text.segment(work.func)}({name}{rest})\n"
    entry = f'kept[f"{"keys" if places.index(name) == 2 else "values"}.{{n}}"]'
    stored = f"{again}{lead}{entry} = {name}\n"
    first = text.exchanged(before, f"{name} = {text.segment(work.args[0])}")
    yield (*first, (at, at, stored)), 1.15, False
    yield ((at, at, again),), 1.2, False
    yield ((at, at, stored),), 1.25, False


# --- factors ---------------------------------------------------------------------------------------------------------


def _scaled_elsewhere(text: Source, function: FunctionType) -> Iterator[Habit]:
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
                yield text.exchanged(node, new), 0.95 + 0.2 * (operator != sign), True


def _factors(text: Source, function: FunctionType) -> Iterator[tuple[str, str, str]]:
    """factor, where, sign: of "x * factor if where else x" in this function, and in those that it calls."""
    own = [*text.positional, *text.keywords]
    found = dict.fromkeys(_conditional_factors(text.definition, {name: name for name in own}))
    for call in [node for node in ast.walk(text.definition) if isinstance(node, ast.Call)]:
        other = function.__globals__.get(call.func.id) if isinstance(call.func, ast.Name) else None
        if not isinstance(other, FunctionType) or not other.__module__.startswith("refllm.spec"):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(other))).body[0]
        if isinstance(tree, ast.FunctionDef):
            given = dict(zip([a.arg for a in tree.args.args], [text.segment(a) for a in call.args], strict=False))
            given |= {k.arg: text.segment(k.value) for k in call.keywords if k.arg}
            found |= dict.fromkeys(_conditional_factors(tree, given))
    yield from found


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


# --- masks of steps --------------------------------------------------------------------------------------------------


def _mask_forgotten(text: Source) -> Iterator[Habit]:
    """The gradients of a step where there is none: what the step would have left, and one mask of the pullback less."""
    made = dict(_unmasked(text))
    steps = [
        change for node in text.expressions()
        if isinstance(node, ast.Subscript) and text.in_pullback(node) and isinstance(node.value, ast.Name)
        and node.value.id in made and text.segment(node.slice) == "t + 1"
        for change in text.exchanged(node, made[node.value.id])
    ]  # fmt: skip
    for call in _calls(text, "kept") if steps else ():
        if text.in_pullback(call) and len(call.args) == 4:
            mask, t, new, before = (text.segment(a) for a in call.args)
            for words, cost in ((new, 1.1), (before, 1.25), (f"kept({mask}, {t}, {new}, 0)", 1.2)):
                yield (*text.exchanged(call, words), *steps), cost, True


def _unmasked(text: Source) -> Iterator[tuple[str, str]]:
    """states: what a step adds to `states`, as it would be without its mask."""
    values = {
        node.targets[0].id: text.segment(node.value)
        for node in statements(text)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and not text.in_pullback(node)
    }
    for call in _calls(text, "kept"):
        parent = text.parents.get(call)
        if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Attribute) and parent.func.attr == "append":
            new = text.segment(call.args[2])
            yield text.segment(parent.func.value), values.get(new, new)
