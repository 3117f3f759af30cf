"""Parameters of which each of several ranks keeps a piece of every layer.

A layer's numbers are gathered when the forward pass comes to it and dropped after, gathered again for the backward
pass, and its gradients go to those who keep the numbers. What is outside of all layers is there from the first layer to
the last. A pullback looks at the arrays that the forward pass had: their memory goes and comes, their place stays.

Source: Rajbhandari et al. 2020 (arXiv:1910.02054) sec. 5.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from refllm.backend import Array, Reservation, can_release, namespace
from refllm.borrowed import Borrowed
from refllm.errors import UserError
from refllm.moments import Share
from refllm.parameters import FlatTree, Tree, count, named_leaves
from refllm.pieces import OUTSIDE, Pieces, layer_lists


class Exchanging(Protocol):
    """What the ranks do together."""

    def gather_pieces(self, vector: Array, pieces: tuple[slice, ...]) -> None: ...

    def sum_pieces(self, vector: Array, pieces: tuple[slice, ...]) -> Array: ...


def require_layers(shapes: Tree, device: str) -> None:
    """UserError where parameters cannot be cut: there is no layer to gather, or no memory that can be given back."""
    instead = "; use --shard optimizer, which cuts the moments"
    if not any(layer_lists(shapes).values()):
        raise UserError(f"--shard parameters gathers a layer at a time, and what is trained here has none{instead}")
    if device != "cpu":
        raise UserError(f"--shard parameters works on --device cpu, not on a GPU{instead}")
    if not can_release():
        raise UserError(f"--shard parameters needs Linux, which takes memory back at once{instead}")


def in_layers(model: Any) -> Any:
    """A model as a tree with its layers, where it is told by its leaves."""
    return getattr(model, "in_layers", model)


class CutTree:
    """The pieces of one rank, and the tree of the whole model, whose numbers are there where they are used."""

    def __init__(self, shapes: Tree, workers: Exchanging, pieces: Pieces, part: int, numbers: Array) -> None:
        """`numbers` become those that the rank keeps."""
        self.shapes, self.pieces, self.part, self._workers = shapes, pieces, part, workers
        self.own = Share(shapes, pieces.kept(part), numbers)
        self.gradient = namespace(numbers).zeros_like(numbers)
        self._memory = Reservation(count(shapes), str(numbers.dtype))
        self._flat = FlatTree(shapes, self._memory.vector)
        self.split = self._flat.split
        self._tree = self._lent(self._flat.tree)
        self._adds = True  # whether this rank has a part in the gradient
        self._summed: set[int] = set()

    @contextmanager
    def lent(self) -> Iterator[Tree]:
        """The tree, of which what is outside of the layers is there inside, and a layer while it is gone through."""
        self.bring(OUTSIDE)
        yield self._tree
        self.drop(OUTSIDE)

    def begin(self, *, adds: bool) -> None:
        """A gradient begins, to which this rank adds its own or nothing."""
        self._adds, self._summed = adds, set()

    def finish(self, gradient: Tree) -> None:
        """Takes the gradient of what is outside of the layers, and sees that all others were taken."""
        self.hand_over(OUTSIDE, gradient)
        missing = set(range(len(self.pieces.units))) - self._summed
        if missing:
            raise UserError(
                f"{len(missing)} layers of this model are not gone through one by one; use --shard optimizer"
            )

    def bring(self, unit: int) -> None:
        one, own = self.pieces.units[unit], self.pieces.of_unit(self.part, unit)
        vector = namespace(self.own.vector).empty(one.size, self.own.vector.dtype)
        vector[one.pieces[self.part]] = self.own.vector[own]
        self._workers.gather_pieces(vector, one.pieces)
        for place, n in one.places(slice(0, one.size)):
            self._memory.vector[place] = vector[n]

    def drop(self, unit: int) -> None:
        for run in self.pieces.units[unit].runs:
            self._memory.release(run)

    def hand_over(self, unit: int, gradient: Tree) -> None:
        """The sum of all ranks' gradients of a unit, of which each keeps that of its piece."""
        if unit in self._summed:
            raise UserError("this model goes through a layer twice in a step; use --shard optimizer")
        self._summed.add(unit)
        one = self.pieces.units[unit]
        vector = namespace(self.own.vector).zeros(one.size, self.own.vector.dtype)
        if self._adds:
            self._fill(vector, unit, gradient)
        self.gradient[self.pieces.of_unit(self.part, unit)] = self._workers.sum_pieces(vector, one.pieces)

    def _fill(self, vector: Array, unit: int, gradient: Tree) -> None:
        """Writes a gradient into the vector of a unit."""
        leaves, places = dict(named_leaves(gradient)), self.pieces.leaves[unit]
        if leaves.keys() != places.keys():
            raise ValueError(f"the gradient has not the leaves of its layer: {sorted(leaves.keys() ^ places.keys())}")
        for path, leaf in leaves.items():
            vector[places[path]].reshape(leaf.shape)[...] = leaf

    def _lent(self, tree: Tree, path: str = "") -> Tree:
        """The tree with lists of layers that say when they are used."""
        if path in self.pieces.first:
            return Borrowed(tree, self, self.pieces.first[path])
        if isinstance(tree, dict):
            return {name: self._lent(child, f"{path}.{name}" if path else name) for name, child in tree.items()}
        return tree
