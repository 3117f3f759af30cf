"""States: a recurrence that goes on from another one, what a loop hands to its next turn, what a cache keeps."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Changes, Habit, Source, calls_of

CARRIED = "a recurrent layer begins with the last state of the one before it, not with zeros"


def carried_on(text: Source) -> Iterator[Habit]:
    """A recurrence that begins with the state that the one before it left."""
    calls = list(calls_of(text, "rnn", "lstm", "gru"))
    for n, group in enumerate([calls, *([call] for call in calls if calls[1:])]):
        for words in ("carried", "carried_apart"):
            changes = [change for call in group for change in _around(text, call, words)]
            if changes:
                yield tuple(changes), 1.15 + 0.1 * (n > 0), False, CARRIED


def _around(text: Source, call: ast.Call, words: str) -> Changes:
    return text.exchanged(call.func, f"{words}({text.segment(call.func)})")


def first_state_forgotten(text: Source) -> Iterator[Habit]:
    """weights(x, states, dz)   becomes   weights(x, [0 * states[0], *states[1:]], dz): the pullback forgets what the
    recurrence began with, or what it came to at the end."""
    began = {
        s.targets[0].id for s in statements(text)
        if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name) and isinstance(s.value, ast.List)
    } | {
        name.id for s in statements(text)
        if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Tuple) and isinstance(s.value, ast.Tuple)
        for name, value in zip(s.targets[0].elts, s.value.elts, strict=False)
        if isinstance(name, ast.Name) and isinstance(value, ast.List)
    }  # fmt: skip
    for node in text.expressions():
        if not isinstance(node, ast.Name) or node.id not in began or not text.in_pullback(node):
            continue
        parent, name = text.parents.get(node), node.id
        if (isinstance(parent, ast.Call) and node in parent.args) or isinstance(parent, ast.Subscript):
            said = f"the pullback takes the first of `{name}` for zeros"
            yield text.exchanged(node, f"[0 * {name}[0], *{name}[1:]]"), 1.15, True, said


def lost_between_turns(text: Source) -> Iterator[Habit]:
    """What a loop hands to its next turn: nothing ever, nothing after the first, or always what it began with."""
    for loop in ast.walk(text.definition):
        if not isinstance(loop, ast.For) or isinstance(loop.body[0], ast.FunctionDef):
            continue
        first, turn = loop.body[0], loop.target.id if isinstance(loop.target, ast.Name) else None
        counted = isinstance(loop.iter, ast.Call) and text.segment(loop.iter.func) == "range" and turn is not None
        at, lead = text.offsets[first.lineno - 1], " " * first.col_offset
        before, outer = text.offsets[loop.lineno - 1], " " * loop.col_offset
        for name in _handed_on(loop):
            nothing, inside = f"{lead}{name} = nothing({name})\n", text.in_pullback(loop)
            yield ((at, at, nothing),), 1.2, inside, f"`{name}` is zero at the beginning of every turn"
            if counted and not inside:
                later = f"{lead}{name} = nothing({name}) if {turn} else {name}\n"
                yield ((at, at, later),), 1.2, inside, f"`{name}` is lost after every turn"
            kept = (before, before, f"{outer}{name}_at_first = {name}\n"), (at, at, f"{lead}{name} = {name}_at_first\n")
            yield kept, 1.2, inside, f"every turn begins with the `{name}` of the first"


def _handed_on(loop: ast.For) -> list[str]:
    """The names that a turn gives a value and that a turn reads before it does."""
    names = [n for statement in loop.body for n in ast.walk(statement) if isinstance(n, ast.Name)]
    stored = {n.id for n in names if isinstance(n.ctx, ast.Store)}
    read = {n.id: n for n in names if isinstance(n.ctx, ast.Load) and n.id in stored}
    first_stored = {
        name: min(n.lineno for n in names if n.id == name and isinstance(n.ctx, ast.Store)) for name in stored
    }
    first_read = {name: min(n.lineno for n in names if n.id == name and isinstance(n.ctx, ast.Load)) for name in read}
    return [name for name in sorted(read) if first_read[name] <= first_stored[name]]


def kept_after_the_work(text: Source) -> Iterator[Habit]:
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
    kind = "keys" if places.index(name) == 2 else "values"
    entry = f'kept[f"{kind}.{{n}}"]'
    stored = f"{again}{lead}{entry} = {name}\n"
    first = text.exchanged(before, f"{name} = {text.segment(work.args[0])}")
    said = f"the kept {kind} go through `{text.segment(work.func)}` again at every step"
    yield (*first, (at, at, stored)), 1.15, False, said
    yield (
        ((at, at, again),),
        1.2,
        False,
        f"the {kind} go through `{text.segment(work.func)}` before and after they are kept",
    )
    yield ((at, at, stored),), 1.25, False, said
