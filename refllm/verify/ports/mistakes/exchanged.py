"""One parameter in the place of another: two of the same shapes, or those of another layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations
from typing import Any

from refllm.backend import Array
from refllm.parameters import Tree
from refllm.verify.ports.candidates import Candidate
from refllm.verify.ports.evaluation import Change
from refllm.verify.ports.mistakes.leaves import COST, UNLIKELY, branch_of, leaves_of, with_bias, with_leaf
from refllm.verify.ports.program import Program, Step

Whole = Callable[[Step, Tree, Tree], Tree]


def of_places(step: Step, own: Tree) -> Iterator[tuple[str, float, list[str], Whole]]:
    """Two of the same shapes, exchanged or one for the other; the weights of another layer."""
    lead, places = branch_of(step), _branches(step, own)
    for a, b in permutations(places, 2):
        if places[a] != places[b] or a.split(".")[:-1] != b.split(".")[:-1] or not _alike(a, b):
            continue
        if a < b:
            yield (
                f"{lead}{a} and {lead}{b} are exchanged", COST,
                [f"- {lead}{a}", f"+ {lead}{b} (and the other way)"],
                partial(_exchanged, a=a, b=b),
            )  # fmt: skip
        yield (
            f"{lead}{b} is used in the place of {lead}{a}", COST, [f"- {lead}{a}", f"+ {lead}{b}"],
            partial(_taken, a=a, b=b),
        )  # fmt: skip
    if not step.kind.endswith("layer"):
        return
    for told, which in (("the first layer", 0), ("the layer before", -1), ("the layer after", 1)):
        for name in ("", *own):
            what = f"{lead}{name}" if name else "all weights of a layer"
            yield (
                f"{what} {'are' if not name else 'is'} taken from {told}", COST if not name else UNLIKELY,
                [f"- {lead}{name}", f"+ that of {told}"], partial(_of_layer, name=name, which=which),
            )  # fmt: skip


def of_tables(program: Program, p: Tree) -> Iterator[Candidate]:
    """The table of distances of the other half, which all layers of a half read."""
    halves = ("encoder", "decoder")
    if program.model != "encoder_decoder" or not all("relative" in p[half] for half in halves):
        return
    for some in (halves[1:], halves[:1], halves):
        lines = [line for half in some for line in (f"- {half}.relative", f"+ {_other(half)}.relative")]
        said = (
            "encoder.relative and decoder.relative are exchanged" if len(some) == 2
            else f"{_other(some[0])}.relative is used in the place of {some[0]}.relative"
        )  # fmt: skip
        change = Change(shared=partial(_with_tables_of_others, halves=some))
        kinds = [f"{half} layer" for half in some]
        yield Candidate(said, COST, change, partial(_is_one_of, kinds), [("parameters", lines)])


def _other(half: str) -> str:
    return "encoder" if half == "decoder" else "decoder"


def _with_tables_of_others(whole: Tree, halves: Sequence[str]) -> Tree:
    tables = {half: {**whole[half], "relative": whole[_other(half)]["relative"]} for half in halves}
    return {**whole, **tables}


def _is_one_of(kinds: Sequence[str], step: Step) -> bool:
    return step.kind in kinds


def _alike(a: str, b: str) -> bool:
    """What is named as one of a kind: matrices, norms, gains with shifts."""
    one, other = a.rpartition(".")[2], b.rpartition(".")[2]
    return one[0] == other[0] or {one, other} <= {"g", "b", "query_norm", "key_norm"}


def _branches(step: Step, own: Tree) -> dict[str, tuple[Any, ...]]:
    found: dict[str, list[Any]] = {}
    for path, leaf in leaves_of(step, own):
        parts = path.split(".")
        for n in range(1, len(parts) + 1):
            found.setdefault(".".join(parts[:n]), []).append((".".join(parts[n:]), leaf.shape))
    return {path: tuple(leaves) for path, leaves in found.items()}


def _at(tree: Tree, path: str) -> Tree:
    for name in path.split("."):
        tree = tree[name]
    return tree


def _exchanged(at: Step, own: Tree, whole: Tree, a: str, b: str) -> Tree:
    for one, other in _both(own, a, b):
        x, y = _at(own, one), _at(own, other)
        own = with_leaf(own, one.split("."), partial(_given, y))
        own = with_leaf(own, other.split("."), partial(_given, x))
    return own


def _taken(at: Step, own: Tree, whole: Tree, a: str, b: str) -> Tree:
    for one, other in _both(own, a, b):
        y = _at(own, other)
        own = with_leaf(own, one.split("."), partial(_given, y))
    return own


def _given(other: Array, leaf: Array) -> Array:
    return other


def _both(own: Tree, a: str, b: str) -> list[tuple[str, str]]:
    """Two matrices, and their biases where both have one."""
    one, other = with_bias(own, a), with_bias(own, b)
    return list(zip(one, other, strict=False)) if len(one) == len(other) else [(a, b)]


def _of_layer(at: Step, own: Tree, whole: Tree, name: str, which: int) -> Tree:
    layers, n = whole, 0
    for part in at.own[:-1]:
        layers = layers[part]
    n = int(at.own[-1])
    other = layers[0 if which == 0 else (n + which) % len(layers)]
    return {**own, name: other[name]} if name else other
