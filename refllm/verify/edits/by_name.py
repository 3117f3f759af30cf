"""A rule by the names of tensors: what is done to every tensor of a tree, and not to some of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Habit, Source, calls_of

# what a rule by names leaves out: tables, then kinds of parameters
NAMES = (
    ('"token"',), ('"position"',), ('"head"',), ('"relative"',), ('"segment"',), ('"token"', '"position"'),
    ('"token"', '"head"'), ('"token"', '"position"', '"segment"'), ('"token"', '"position"', '"head"'),
    ('"token"', '"relative"'), ('"norm*"',), ('"b*"',), ('"W*"',), ('"norm*"', '"b*"'),
)  # fmt: skip
KINDS = {
    "token": "table", "position": "table", "segment": "table", "relative": "the table of relative positions",
    "head": "the output matrix", "norm*": "the norms", "b*": "the biases", "W*": "the matrices of the layers",
}  # fmt: skip


def by_name(text: Source) -> Iterator[Habit]:
    """What is done to every tensor of a tree, left out for some names."""
    inner = {f.name: f for f in text.inner}
    for call in calls_of(text, "each"):
        f = inner.get(call.args[0].id) if isinstance(call.args[0], ast.Name) else None
        for node in ast.walk(f) if f is not None else ():
            for words, cost, said in _for_some_names(text, node):
                yield (*text.exchanged(call.func, "each_named"), *text.exchanged(node, words)), cost, False, said


def _for_some_names(text: Source, node: ast.AST) -> Iterator[tuple[str, float, str]]:
    old = text.segment(node) if isinstance(node, ast.Compare | ast.Name) else ""
    done = "decayed" if "decay" in _statement_of(text, node) else "treated so"
    for names in NAMES:
        called, tensors = f"named({', '.join(names)})", in_words(names)
        if isinstance(node, ast.Compare):
            yield f"{old} and not {called}", 0.9, f"{tensors} are not {done}"
            yield f"{old} or {called}", 1.15, f"{tensors} are {done} too"
            yield called, 1.15, f"nothing but {tensors} is {done}"
            yield f"not {called}", 1.15, f"all but {tensors} are {done}"
        elif isinstance(keyword := text.parents.get(node), ast.keyword) and not names[1:]:
            yield f"0 if {called} else {old}", 1.15, f"for {tensors} the argument {keyword.arg} is 0"


def _statement_of(text: Source, node: ast.AST) -> str:
    """The words of the statement that a node stands in."""
    while not isinstance(node, ast.stmt) and node in text.parents:
        node = text.parents[node]
    return text.segment(node)


def in_words(names: tuple[str, ...]) -> str:
    """The token and position tables, for these two names."""
    kinds = [KINDS.get(name.strip('"'), name) for name in names]
    tables = [name.strip('"') for name in names if KINDS.get(name.strip('"')) == "table"]
    found = [f"the {' and '.join(tables)} table{'s' * bool(tables[1:])}"] if tables else []
    return " and ".join([*found, *(kind for kind in kinds if kind != "table")])
