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

HALVES, PAIRS = "- two halves", "+ pairs"
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
    width = int(program.config["head_width"])
    if width % 2:
        return
    paths = {letter: with_bias(own, f"attention.W{letter}") for letter in "qk"}
    both = [*paths["q"], *paths["k"]]
    said = "the columns of {} and Wk are put in another order for the rotation, which the files have already"
    yield read_otherwise(step, both, said, COST, [HALVES, PAIRS], partial(_interleaved, width=width))
    other = said + " (the other way)"
    yield read_otherwise(
        step, both, other, COST, [f"- {PAIRS[2:]}", f"+ {HALVES[2:]}"], partial(_in_halves, width=width)
    )
    biases = [path for path in both if "W" not in path]
    if biases:
        said = "the columns of Wq and Wk are put in another order for the rotation, and their biases, {} too, are not"
        yield read_otherwise(step, biases, said, COST, [HALVES, PAIRS], partial(_in_halves, width=width))
    for letter, other in (("q", "k"), ("k", "q")):
        yield from _of_one_map(program, step, paths[letter], letter, other)


def _of_one_map(program: Program, step: Step, paths: list[str], letter: str, other: str) -> Iterator[Candidate]:
    """The columns of queries alone or of keys alone in another order than the rotation's pairs, or in blocks of another
    size: a function that permutes both is given the wrong number of heads."""
    config, width = program.config, int(program.config["head_width"])
    what = {"q": "queries", "k": "keys"}
    for read, order in ((_in_halves, "halves"), (_interleaved, "pairs")):
        said = (
            f"the columns of {{}} alone are put in the order of {order}: {what[letter]} and {what[other]} do not agree"
        )
        yield read_otherwise(step, paths, said, COST, [HALVES, PAIRS], partial(read, width=width))
    heads = {"q": int(config["heads"]), "k": int(config["kv_heads"])}
    block = heads[letter] * width // heads[other]
    if heads["q"] == heads["k"] or block % 2 or block * heads[other] != heads[letter] * width:
        return
    said = (
        f"the columns of {{}} are put in the order of pairs as those of {heads[other]} heads, which is the number of "
        f"{what[other]}; there are {heads[letter]} of {what[letter]}"
    )
    lines = [f"- permuted({{}}, {heads[letter]})", f"+ permuted({{}}, {heads[other]})"]
    read = partial(_in_other_blocks, block=block, width=width)
    yield read_otherwise(step, paths, said, COST, lines, read)
    plain = said.replace("in the order of pairs", "for the rotation, though their pairs are right,")
    yield read_otherwise(step, paths, plain, COST, lines, partial(_interleaved, width=block))


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


def _in_other_blocks(W: Array, block: int, width: int) -> Array:
    """What the text's halves see of columns that were put in pairs within blocks, where heads were meant."""
    return _in_halves(_interleaved(W, block), width)
