"""One mistake at both places of a layer that are alike: around attention and around the feed-forward layer, on queries
and on keys. Who writes one function for both makes it twice."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType

from refllm.verify.edits import Edit, source_of

DEARER = 0.15  # than the edit at one of the places
# names of the first place, and of the second
SUBLAYERS = {
    "n": "m", "x": "h", "a": "f", "attention_out": "feed_forward", "norm1": "norm2", "norm1_after": "norm2_after",
    "residual1": "residual2", "s": "t",
}  # fmt: skip
HEADS = {"q": "k", "q_mapped": "k_mapped", "q_normed": "k_normed", "query_norm": "key_norm", "heads": "kv_heads"}
OF = {
    "llama_layer": SUBLAYERS, "transformer_layer": SUBLAYERS, "post_norm_layer": SUBLAYERS, "grouped_attention": HEADS,
    "self_attention": HEADS,
}  # fmt: skip
Lines = tuple[tuple[str, ...], tuple[str, ...]]  # that go, and that come


def at_both_places(function: FunctionType, edits: Iterable[Edit]) -> Iterator[Edit]:
    """Each edit of the first place together with the same one of the second."""
    names = OF.get(function.__name__)
    if names is None:
        return
    known = dict[Lines, Edit]()
    for edit in edits:
        lines = _changed(edit)
        if lines is not None:
            known.setdefault(lines, edit)
    for (old, new), edit in known.items():
        other = known.get((_renamed(old, names), _renamed(new, names)))
        both = None if other is None or other is edit else edit.beside(other)
        if both is not None:
            cost = max(edit.cost, other.cost if other else 0.0) + DEARER
            yield Edit(function, both.changes, cost, in_pullback=False, said=edit.said and f"{edit.said}, twice")


def _changed(edit: Edit) -> Lines | None:
    """The statements that an edit changes, in a form in which both places are alike; None where they are no Python."""
    old, new = source_of(edit.original).splitlines(), edit.source.splitlines()
    if len(old) != len(new):
        return None
    places = [n for n, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    try:
        return tuple(_form(old[n]) for n in places), tuple(_form(new[n]) for n in places)
    except SyntaxError:
        return None


def _form(line: str) -> str:
    """A statement without its tap and without what its value is called."""
    statement = ast.parse(line.strip()).body[0]
    value = getattr(statement, "value", None)
    return ast.unparse(_Untapped().visit(value)) if isinstance(value, ast.expr) else ast.unparse(statement)


class _Untapped(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        is_tap = isinstance(node.func, ast.Name) and node.func.id == "tap"
        return node.args[1] if is_tap else node


def _renamed(lines: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    """The same lines at the second place."""
    return tuple(ast.unparse(_Renamed(names).visit(ast.parse(line))) for line in lines)


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        known = isinstance(node.value, str) and node.value in self.names
        return ast.Constant(self.names[str(node.value)]) if known else node
