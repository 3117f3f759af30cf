"""What a training holds: parameters and moments, whole, or the share of them that one of several ranks keeps.

Whoever holds what, they are loaded and given by name, a piece at a time where they are cut.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from refllm.backend import Array, device_namespace, shared_zeros, to_device, to_host
from refllm.cut_parameters import CutTree, require_layers
from refllm.errors import UserError
from refllm.moments import Share
from refllm.parameters import FlatTree, NamedLeaf, Tree, count, named_leaves, placed, require_fit
from refllm.pieces import Pieces, length
from refllm.piecewise import pieces_of, whole_array
from refllm.ranks import Ranks
from refllm.workers import Workers

WEIGHTS, MOMENTS, BEST = "weights", ("moment1", "moment2"), "best"


class Holding:
    """Parameters, gradients, moments and step number, and the workers that share them."""

    def __init__(self, shapes: Tree, settings: Any, workers: Workers, *, in_layers: Tree) -> None:
        """`in_layers` are the same shapes with the layers in lists."""
        self.shapes, self.settings, self.workers = shapes, settings, workers
        xp, size = device_namespace(settings.device), count(shapes)
        if 8 * size > sys.maxsize:
            raise UserError(f"no memory holds a model of {size:,} parameters; lower --width, --hidden or --layers")
        zeros = shared_zeros if settings.device == "cpu" else xp.zeros
        self.pieces = Pieces(in_layers, workers.count)
        kept = workers.kept(self.pieces)
        own = sum(length(run) for run, _ in kept)
        self.cut: CutTree | None = None
        self._flat: list[FlatTree] = []
        if isinstance(workers, Ranks) and workers.layered:
            require_layers(shapes, settings.device)
            self.cut = CutTree(shapes, workers, self.pieces, workers.world.rank, zeros(own, settings.dtype))
        else:
            self._flat = [FlatTree(shapes, zeros(size, settings.dtype)) for _ in range(1 + workers.vectors)]
        self.m, self.v = (Share(shapes, kept, zeros(own, settings.dtype)) for _ in range(2))
        self._places, _ = placed(shapes)
        self._squared = [workers.squared(self.pieces, part) for part in range(workers.count)]
        self._best: dict[str, Array] | Share | None = None  # the weights that are kept beside those that change
        self.step_number = 0
        self._everywhere: Callable[..., list[Any]] | None = None
        self._alike = False  # whether all workers have these parameters and moments

    @property
    def parameters(self) -> FlatTree:
        """All of them. ValueError where each rank has a share."""
        if self.cut is not None:
            raise ValueError("Holding: no rank has all parameters; ask for them by `lent` or `groups`")
        return self._flat[0]

    @property
    def vector(self) -> Array | None:
        """All parameters, or None where nobody has them."""
        return self.parameters.vector if self.cut is None else None

    @property
    def gradient(self) -> FlatTree:
        """The first worker's, to which the others' are added."""
        return self._flat[1]

    @property
    def _gradients(self) -> list[FlatTree]:
        return self._flat[1:]

    def load(self, groups: dict[str, dict[str, Any]], step: int) -> None:
        """Parameters and, where given, moments and the best weights from host arrays by name, there or piecewise.
        UserError if they do not fit the model."""
        for arrays in groups.values():
            require_fit(self.shapes, arrays)
        for group in (WEIGHTS, *MOMENTS):
            for path, x in groups.get(group, {}).items():
                self._load_leaf(group, path, x)
        if BEST in groups:
            self._load_best(groups[BEST])
        self.step_number = step
        self._alike = False

    def load_weights(self, leaves: Iterable[NamedLeaf]) -> None:
        """Those of a beginning, a leaf at a time. UserError if they do not fit the model."""
        wanted, given = dict(named_leaves(self.shapes)), {}
        for path, x in leaves:
            given[path] = SimpleNamespace(shape=x.shape)  # and not the leaf, which may go
            if wanted.get(path) == x.shape:
                self._load_leaf(WEIGHTS, path, x)
        require_fit(self.shapes, given)
        self.load({}, step=0)

    def _load_leaf(self, group: str, path: str, x: Any) -> None:
        place, _ = self._places[path]
        start = place.start
        for numbers in pieces_of(x):
            if group == WEIGHTS and self.cut is None:
                vector = self.parameters.vector
                vector[start : start + len(numbers)] = to_device(numbers.astype(vector.dtype), self.settings.device)
            elif self.workers.cut:
                self._ask("_take", group, start, numbers)
            else:
                self._share(group).take(start, numbers)
            start += len(numbers)

    def keep_best(self) -> None:
        """Keeps the weights of this moment beside those that go on changing: each worker its own where they are cut."""
        if self.cut is None:
            self._best = {path: to_host(x).copy() for path, x in self.parameters.views.items()}
        else:
            self._ask("_keep_own")

    def end_with_best(self) -> None:
        """The weights that were kept are those of the training again."""
        if isinstance(self._best, dict):
            self.load({WEIGHTS: self._best}, step=self.step_number)
            self._best = None
        else:
            self._ask("_take_back_own")

    @property
    def keeps_best(self) -> bool:
        return self._best is not None

    def _load_best(self, arrays: dict[str, Any]) -> None:
        if self.cut is None:
            self._best = {path: whole_array(x) for path, x in arrays.items()}
            return
        self._ask("_keep_own")
        for path, x in arrays.items():
            self._load_leaf(BEST, path, x)

    def _keep_own(self, part: int) -> None:
        own = self._share(WEIGHTS)
        self._best = Share(self.shapes, own.kept, own.vector.copy())

    def _take_back_own(self, part: int) -> None:
        self._share(WEIGHTS).vector[...] = self._share(BEST).vector
        self._best = None

    def groups(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint holds, but for the best weights. Vectors of which every worker has a part come piece by
        piece when they are read."""
        return {group: self._leaves(group) for group in (WEIGHTS, *MOMENTS)}

    def best(self) -> dict[str, dict[str, Any]]:
        """The group of the best weights, if any are kept."""
        return {BEST: self._leaves(BEST)} if self.keeps_best else {}

    @contextmanager
    def lent(self) -> Iterator[Tree]:
        """The parameters for what all workers do together, a layer being there while it is gone through."""
        if self.cut is None:
            yield self.parameters.tree
            return
        with self.cut.lent() as p:
            yield p

    def _leaves(self, group: str) -> dict[str, Any]:
        if self.cut is None and group == WEIGHTS:
            return dict(self.parameters.views)
        if isinstance(self._best, dict) and group == BEST:
            return self._best
        held = self._share(group)
        if not self.workers.cut:
            return dict(held.views)
        return held.gathered(lambda n: [part for parts in self._ask("_held_of", group, n) for part in parts])

    def _share(self, group: str) -> Share:
        if group in MOMENTS:
            return self.m if group == MOMENTS[0] else self.v
        if group == BEST:
            assert isinstance(self._best, Share)
            return self._best
        assert self.cut is not None
        return self.cut.own

    def _held_of(self, part: int, group: str, n: slice) -> list[tuple[int, Array]]:
        """Those of the numbers n that this worker has."""
        return [(start, to_host(numbers)) for start, numbers in self._share(group).held_of(n)]

    def _take(self, part: int, group: str, start: int, numbers: Array) -> None:
        """Of these numbers, which begin at `start`, those that this worker keeps."""
        self._share(group).take(start, numbers)

    def _ask(self, *request: Any) -> list[Any]:
        """Every worker does its part in a phase."""
        if self._everywhere is None:
            self._everywhere = self.workers.crew(self._part, fork=self.settings.device == "cpu")
        return self._everywhere(*request)

    def _part(self, part: int, phase: str, *arguments: Any) -> Any:
        """A worker's part in a phase of a step."""
        return getattr(self, phase)(part, *arguments)
