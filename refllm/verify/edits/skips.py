"""The gradient that goes past a part, as in a residual: it is that of what stands before, or of what stands after."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Habit, Source

PAST = "what goes past `{}` is `{}` and not `{}`"


def past_another_part(text: Source) -> Iterator[Habit]:
    """dh = f_back(dy); dx = g_back(dh)   becomes   dx = g_back(dh) - dh + dy: the skip of g carries the gradient from
    after f too."""
    for function in text.inner:
        given = [a.arg for a in function.args.args]
        if not function.name.endswith("_back"):
            continue
        known = list(given)
        for statement in function.body:
            made, name, entered = _through(text, statement)
            if made and entered in known:
                at, lead = text.offsets[statement.end_lineno or statement.lineno], " " * statement.col_offset
                for other in known:
                    if other != entered:
                        line = f"{lead}{made} = {made} - {entered} + {other}\n"
                        yield ((at, at, line),), 1.25, True, PAST.format(name, other, entered)
            known += [made] if made else []


def _through(text: Source, statement: ast.stmt) -> tuple[str, str, str]:
    """dx, f and dy for "dx, dp = f_back(dy)"."""
    call = statement.value if isinstance(statement, ast.Assign) else None
    if not (isinstance(statement, ast.Assign) and isinstance(call, ast.Call) and len(call.args) == 1):
        return "", "", ""
    target, name, given = statement.targets[0], text.segment(call.func), call.args[0]
    first = target.elts[0] if isinstance(target, ast.Tuple) else target
    if not name.endswith("_back") or not isinstance(first, ast.Name) or not isinstance(given, ast.Name):
        return "", "", ""
    return first.id, name.removesuffix("_back"), given.id
