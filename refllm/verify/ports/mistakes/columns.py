"""The columns of a matrix cut otherwise into heads, parts and the pairs of the rotation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import permutations

import numpy

from refllm.backend import Array
from refllm.parameters import Tree
from refllm.verify.ports.candidates import Candidate
from refllm.verify.ports.mistakes.leaves import COST, Way, read_otherwise, with_bias
from refllm.verify.ports.program import Program, Step

PARTS = {"Wqkv": "qkv", "Wkv": "kv"}  # what lies side by side in one of ours


def of_columns(program: Program, name: str) -> Iterator[Way]:
    """What is done to the columns of a matrix and to its bias alike."""
    if name in PARTS:
        yield from _in_parts(program, PARTS[name])
    if name in ("Wq", "Wk", "Wv", "Wo"):
        yield from _in_heads(program, name)


def of_pairs(program: Program, step: Step, own: Tree) -> Iterator[Candidate]:
    """The rotation's pairs in queries and keys, as they lie in the files of other code."""
    if step.kind != "layer" or program.model != "llama":
        return
    paths = [path for name in ("attention.Wq", "attention.Wk") for path in with_bias(own, name)]
    width = int(program.config["head_width"])
    said = "the columns of {} and Wk are put in another order for the rotation, which the files have already"
    if width % 2 == 0:
        yield read_otherwise(step, paths, said, COST, ["- two halves", "+ pairs"], partial(_interleaved, width=width))
        other = said + " (the other way)"
        yield read_otherwise(step, paths, other, COST, ["- pairs", "+ two halves"], partial(_in_halves, width=width))


def _in_parts(program: Program, parts: str) -> Iterator[Way]:
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


def _in_heads(program: Program, name: str) -> Iterator[Way]:
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
