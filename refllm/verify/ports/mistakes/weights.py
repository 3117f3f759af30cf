"""Weights that a port reads otherwise: transposed, left out, cut into heads in another order, taken from another place.

What there is follows from the names and the shapes of the parameters; nothing is known here about any model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import permutations
from typing import Any

import numpy

from refllm.backend import Array
from refllm.parameters import Tree, map_leaves, named_leaves
from refllm.verify.ports.candidates import Candidate
from refllm.verify.ports.evaluation import Change
from refllm.verify.ports.program import Program, Step
from refllm.verify.words import to_bfloat16

LIKELY, COST, UNLIKELY = 0.55, 0.6, 0.75  # below every edit of the text
Read = Callable[[Array], Array]
PARTS = {"Wqkv": "qkv", "Wkv": "kv"}  # what lies side by side in one of ours


def mistakes(program: Program, p: Tree, raw: Mapping[str, Array]) -> Iterator[Candidate]:
    """Of every kind of step, by its first one; then of all weights."""
    for step in _kinds(program):
        own = step.parameters(p)
        for path, leaf in _leaves(step, own):
            for said, cost, lines, read in _of_leaf(program, path, leaf):
                yield _read(step, [path], said, cost, lines, read)
            for said, cost, lines, read in _of_columns(program, path.rpartition(".")[2]):
                yield _read(step, _with_bias(own, path), said, cost, lines, read)
        yield from _of_pairs(program, step, own)
        for said, cost, lines, change in _of_places(step, own):
            yield Candidate(said, cost, Change(parameters=change), partial(_is_kind, step), [("parameters", lines)])
    for path, table in raw.items():
        yield from _with_its_unused_rows(program, path, table)
    yield from _of_all(program)


def _kinds(program: Program) -> Iterator[Step]:
    """The first step of each kind; experts make a layer one of another kind."""
    seen = set[str]()
    for step in program.steps:
        if step.kind in seen:
            continue
        if step.kind.endswith("layer") or step.kind != "output" or step.own or step.place == program.answer:
            seen.add(step.kind)
            yield step
    yield from (step for step in program.steps if step.kind == "output" and step.place != program.answer)


def _is_kind(step: Step, other: Step) -> bool:
    return other.kind == step.kind and (step.kind != "output" or other.place == step.place)


# which parts of the whole tree a step without a branch of its own reads
READ = {
    "embedding": ("token", "position", "segment", "norm"), "norm": ("norm",),
    "encoder embedding": ("token", "encoder.position", "encoder.embedding_norm", "encoder.relative"),
    "decoder embedding": ("token", "decoder.position", "decoder.embedding_norm", "decoder.relative"),
    "encoder norm": ("norm",), "decoder norm": ("norm",),
    "output": ("head", "token", "masked", "pooler", "span", "W", "b"),
}  # fmt: skip


def _leaves(step: Step, own: Tree) -> Iterator[tuple[str, Array]]:
    for path, leaf in named_leaves(own):
        reads = READ.get(step.kind)
        if reads is None or any(path == name or path.startswith(name + ".") for name in reads):
            yield path, leaf


def _read(step: Step, paths: list[str], said: str, cost: float, lines: list[str], read: Read) -> Candidate:
    """One parameter, and what goes with it, read otherwise."""

    def change(at: Step, own: Tree, whole: Tree) -> Tree:
        for one in paths:
            own = _with_leaf(own, one.split("."), read)
        return own

    path = paths[0]
    named = f"{_stars(step)}{path}"
    relative = path.endswith(".relative")  # read by every layer of its half
    if relative:
        acts: Callable[[Step], bool] = partial(_reads_relative, path.split(".")[0])
        changed = Change(shared=lambda whole: _with_leaf(whole, path.split("."), read))
    else:
        acts, changed = partial(_is_kind, step), Change(parameters=change)
    shown = [line.replace("{}", named) for line in lines]
    return Candidate(said.replace("{}", named), cost, changed, acts, [("parameters", shown)])


def _reads_relative(half: str, step: Step) -> bool:
    return step.kind == f"{half} layer"


def _stars(step: Step) -> str:
    """layers.*. for the branch of a layer."""
    return "".join(f"{'*' if isinstance(name, int) else name}." for name in step.own)


def _with_leaf(tree: Tree, names: list[str], read: Read) -> Tree:
    """The tree with one leaf read otherwise; itself where it has none of that name."""
    if not names:
        return read(tree)
    if not isinstance(tree, dict) or names[0] not in tree:
        return tree
    return {**tree, names[0]: _with_leaf(tree[names[0]], names[1:], read)}


# --- one of them ------------------------------------------------------------------------------------------------------


def _of_leaf(program: Program, path: str, leaf: Array) -> Iterator[tuple[str, float, list[str], Read]]:
    name = path.rpartition(".")[2]
    if (leaf.ndim == 2 and name.startswith("W")) or name == "head":
        yield from _of_matrix(leaf)
    if leaf.ndim == 1:
        yield from _of_vector(name)
    if name in ("position", "segment", "relative"):
        yield from _of_table(name, leaf)


def _one_row(E: Array, n: int) -> Array:
    return numpy.broadcast_to(E[n : n + 1], E.shape)


def _of_columns(program: Program, name: str) -> Iterator[tuple[str, float, list[str], Read]]:
    """What is done to the columns of a matrix and to its bias alike."""
    if name in PARTS:
        yield from _in_parts(program, PARTS[name])
    if name in ("Wq", "Wk", "Wv", "Wo"):
        yield from _in_heads(program, name)


def _with_bias(own: Tree, path: str) -> list[str]:
    """A matrix and the bias of the same map."""
    lead, _, name = path.rpartition(".")
    bias = f"{lead}.b{name[1:]}" if lead else f"b{name[1:]}"
    return [path, bias] if name != "Wo" and bias in dict(named_leaves(own)) else [path]


def _of_pairs(program: Program, step: Step, own: Tree) -> Iterator[Candidate]:
    """The rotation's pairs in queries and keys, as they lie in the files of other code."""
    if step.kind != "layer" or program.model != "llama":
        return
    paths = [path for name in ("attention.Wq", "attention.Wk") for path in _with_bias(own, name)]
    width = int(program.config["head_width"])
    said = "the columns of {} and Wk are put in another order for the rotation, which the files have already"
    if width % 2 == 0:
        yield _read(step, paths, said, COST, ["- two halves", "+ pairs"], partial(_interleaved, width=width))
        other = said + " (the other way)"
        yield _read(step, paths, other, COST, ["- pairs", "+ two halves"], partial(_in_halves, width=width))


def _of_matrix(leaf: Array) -> Iterator[tuple[str, float, list[str], Read]]:
    if leaf.shape[0] == leaf.shape[1]:
        yield "{} is not transposed, or once too often", LIKELY, ["- {}", "+ {}.T"], lambda W: W.T
        return
    lines = ["- {}", "+ {}.T.reshape({}.shape)"]
    said = "{} has its rows for its columns: the numbers are read in the order of the file under the other shape"
    yield said, COST, lines, lambda W: W.T.reshape(W.shape)


def _of_vector(name: str) -> Iterator[tuple[str, float, list[str], Read]]:
    if name.startswith("b"):
        yield "{} is left out", LIKELY, ["- + {}", "+ "], lambda b: b * 0
    elif name == "offset":
        yield "the gain is {}, where 1 + {} is right", LIKELY, ["- 1 + {}", "+ {}"], lambda g: g - 1
        yield "the gain {} is left out", COST, ["- (1 + {}) n", "+ n"], lambda g: g * 0
    elif name == "g":
        yield "the gain is 1 + {}, where {} is right", LIKELY, ["- {}", "+ 1 + {}"], lambda g: g + 1
        yield "the gain {} is left out", COST, ["- {} n", "+ n"], lambda g: g * 0 + 1


def _of_table(name: str, leaf: Array) -> Iterator[tuple[str, float, list[str], Read]]:
    yield "the table {} is left out", LIKELY, ["- + {}[...]", "+ "], lambda E: E * 0
    if name == "position":
        for n in (1, 2):
            yield (
                f"positions begin at {n}, where 0 is right", LIKELY, ["- {}[t]", f"+ {{}}[t + {n}]"],
                partial(numpy.roll, shift=-n, axis=0),
            )  # fmt: skip
        yield (
            "all places have the position 0",
            COST,
            ["- {}[t]", "+ {}[0]"],
            partial(_one_row, n=0),
        )
    if name == "segment":
        yield "the segments are exchanged", COST, ["- {}[segments]", "+ {}[1 - segments]"], lambda E: E[::-1]
        for n in range(min(2, len(leaf))):
            yield (
                f"all tokens have the segment {n}", LIKELY, ["- {}[segments]", f"+ {{}}[{n}]"],
                partial(_one_row, n=n),
            )  # fmt: skip
    if name == "relative" and leaf.shape[0] % 2 == 0:
        said = "the halves of {} for keys before and after a place are exchanged"
        yield said, COST, ["- {}", "+ the other half of {}"], lambda E: numpy.roll(E, len(E) // 2, axis=0)


def _in_parts(program: Program, parts: str) -> Iterator[tuple[str, float, list[str], Read]]:
    """Queries, keys and values side by side, in another order or in the heads of each other."""
    n, H = len(parts), int(program.config["heads"])
    for order in list(permutations(range(n)))[1:]:
        told = ", ".join(parts[i] for i in order)
        yield (
            f"the parts of {{}} are taken for {told}, where {', '.join(parts)} is right", COST,
            [f"- {', '.join(parts)} = {{}}", f"+ {told} = {{}}"], partial(_reordered, order=order),
        )  # fmt: skip
    said = "each head's {} lie beside each other in {{}}, as {}".format(", ".join(parts), "the port reads it")
    lines = [f"- {{}} is ({n}, heads, width)", f"+ {{}} is (heads, {n}, width)"]
    yield said, COST, lines, lambda W: _axes(W, (H, n, -1), (1, 0, 2))
    said = "the entries of {} are cut as (width, heads), not as (heads, width)"
    yield said, COST, ["- (heads, width)", "+ (width, heads)"], lambda W: _axes(W, (n, -1, H), (0, 2, 1))


def _reordered(W: Array, order: tuple[int, ...]) -> Array:
    parts = numpy.split(W, len(order), axis=-1)
    return numpy.concatenate([parts[i] for i in order], axis=-1)


def _axes(W: Array, shape: tuple[int, ...], order: tuple[int, ...]) -> Array:
    """The last axis read under a shape, its axes exchanged."""
    lead = W.ndim - 1
    cut = W.reshape(*W.shape[:-1], *shape)
    return cut.transpose(*range(lead), *(lead + axis for axis in order)).reshape(W.shape)


def _in_heads(program: Program, name: str) -> Iterator[tuple[str, float, list[str], Read]]:
    config = program.config
    heads = int(config["kv_heads"] if name[-1] in "kv" and "kv_heads" in config else config["heads"])
    if heads == 1:
        return
    said, lines = "{} is cut as (width, heads), not as (heads, width)", ["- (heads, width)", "+ (width, heads)"]
    if name == "Wo":
        yield said, COST, lines, lambda W: _axes(W.T, (-1, heads), (1, 0)).T
        return
    yield said, COST, lines, lambda W: _axes(W, (-1, heads), (1, 0))


def _interleaved(W: Array, width: int) -> Array:
    return _axes(W, (-1, 2, width // 2), (0, 2, 1))


def _in_halves(W: Array, width: int) -> Array:
    return _axes(W, (-1, width // 2, 2), (0, 2, 1))


# --- one in the place of another --------------------------------------------------------------------------------------


Whole = Callable[[Step, Tree, Tree], Tree]


def _of_places(step: Step, own: Tree) -> Iterator[tuple[str, float, list[str], Whole]]:
    """Two of the same shapes, exchanged or one for the other; the weights of another layer."""
    stars, places = _stars(step), _branches(step, own)
    for a, b in permutations(places, 2):
        if places[a] != places[b] or a.split(".")[:-1] != b.split(".")[:-1] or not _alike(a, b):
            continue
        if a < b:
            yield (
                f"{stars}{a} and {stars}{b} are exchanged", COST,
                [f"- {stars}{a}", f"+ {stars}{b} (and the other way)"],
                partial(_exchanged, a=a, b=b),
            )  # fmt: skip
        yield (
            f"{stars}{b} is used in the place of {stars}{a}", COST, [f"- {stars}{a}", f"+ {stars}{b}"],
            partial(_taken, a=a, b=b),
        )  # fmt: skip
    if not step.kind.endswith("layer"):
        return
    for told, which in (("the first layer", 0), ("the layer before", -1), ("the layer after", 1)):
        for name in ("", *own):
            what = f"{stars}{name}" if name else "all weights of a layer"
            yield (
                f"{what} {'are' if not name else 'is'} taken from {told}", COST if not name else UNLIKELY,
                [f"- {stars}{name}", f"+ that of {told}"], partial(_of_layer, name=name, which=which),
            )  # fmt: skip


def _alike(a: str, b: str) -> bool:
    """What is named as one of a kind: matrices, norms, gains with shifts."""
    one, other = a.rpartition(".")[2], b.rpartition(".")[2]
    return one[0] == other[0] or {one, other} <= {"g", "b", "query_norm", "key_norm"}


def _branches(step: Step, own: Tree) -> dict[str, tuple[Any, ...]]:
    found: dict[str, list[Any]] = {}
    for path, leaf in _leaves(step, own):
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
        own = _with_leaf(own, one.split("."), partial(_given, y))
        own = _with_leaf(own, other.split("."), partial(_given, x))
    return own


def _taken(at: Step, own: Tree, whole: Tree, a: str, b: str) -> Tree:
    for one, other in _both(own, a, b):
        y = _at(own, other)
        own = _with_leaf(own, one.split("."), partial(_given, y))
    return own


def _given(other: Array, leaf: Array) -> Array:
    return other


def _both(own: Tree, a: str, b: str) -> list[tuple[str, str]]:
    """Two matrices, and their biases where both have one."""
    one, other = _with_bias(own, a), _with_bias(own, b)
    return list(zip(one, other, strict=False)) if len(one) == len(other) else [(a, b)]


def _of_layer(at: Step, own: Tree, whole: Tree, name: str, which: int) -> Tree:
    layers, n = whole, 0
    for part in at.own[:-1]:
        layers = layers[part]
    n = int(at.own[-1])
    other = layers[0 if which == 0 else (n + which) % len(layers)]
    return {**own, name: other[name]} if name else other


# --- all of them ------------------------------------------------------------------------------------------------------


def _with_its_unused_rows(program: Program, path: str, table: Array) -> Iterator[Candidate]:
    """A table whose first rows no position uses, read from its first row on."""
    own = path.split(".")
    for step in program.steps:
        if step.kind == f"{own[0]} embedding":
            skipped = table.shape[0] - int(program.config["context"])

            def change(at: Step, tree: Tree, whole: Tree) -> Tree:
                return _with_leaf(tree, own, lambda E: table[: len(E)])

            lines = [("parameters", [f"- {path}[t + {skipped}]", f"+ {path}[t]"])]
            said = f"positions begin at the first row of {path}; the first {skipped} rows are not used"
            yield Candidate(said, LIKELY, Change(parameters=change), partial(_is_kind, step), lines)


def _of_all(program: Program) -> Iterator[Candidate]:
    for dtype, stored in (("bfloat16", to_bfloat16), ("float16", _half)):

        def change(at: Step, own: Tree, whole: Tree, stored: Read = stored) -> Tree:
            return map_leaves(stored, own) if at.own else {
                name: branch if name in ("layers", "encoder", "decoder") else map_leaves(stored, branch)
                for name, branch in own.items()
            }  # fmt: skip

        said = f"the weights are rounded to {dtype}"
        yield Candidate(
            said, COST, Change(parameters=change), lambda step: True, [("parameters", ["- W", f"+ {dtype}(W)"])]
        )


def _half(x: Array) -> Array:
    with numpy.errstate(over="ignore"):
        return x.astype("float16").astype(x.dtype)
