"""What a training holds: parameters and moments, whole, or the share of them that one of several ranks keeps.

Whoever holds what, they are loaded and given by name as whole arrays, a piece at a time where they are cut.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from refllm.backend import Array, device_namespace, shared_zeros, to_device, to_host
from refllm.cut_parameters import CutTree, require_layers
from refllm.errors import UserError
from refllm.moments import Gathered, Share, stretches
from refllm.parameters import FlatTree, Tree, count, from_names, require_fit
from refllm.pieces import Pieces, length
from refllm.ranks import Ranks
from refllm.workers import Workers

MOMENTS = ("moment1", "moment2")


class Holding:
    """Parameters, gradients, moments and step number, and the workers that share them."""

    def __init__(self, shapes: Tree, settings: Any, workers: Workers) -> None:
        self.shapes, self.settings, self.workers = shapes, settings, workers
        xp, size = device_namespace(settings.device), count(shapes)
        if 8 * size > sys.maxsize:
            raise UserError(f"no memory holds a model of {size:,} parameters; lower --width, --hidden or --layers")
        zeros = shared_zeros if settings.device == "cpu" else xp.zeros
        self.pieces = Pieces(shapes, workers.count)
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
        self._squared = [workers.squared(self.pieces, part) for part in range(workers.count)]
        self.step_number = 0
        self._everywhere: Callable[..., list[Any]] | None = None
        self._alike = False  # whether all workers have these parameters and moments

    @property
    def parameters(self) -> FlatTree:
        """All of them. ValueError where each rank has a share."""
        if self.cut is not None:
            raise ValueError("Holding: no rank has all parameters; ask for them by `lent`, `weights` or `tree`")
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

    def load(self, groups: dict[str, dict[str, Array]], step: int) -> None:
        """Parameters and, where given, moments from host arrays by name. UserError if they do not fit the model."""
        if "weights" in groups:
            require_fit(self.shapes, groups["weights"])
            self._load_weights(groups["weights"])
        for group in MOMENTS:
            if group in groups:
                require_fit(self.shapes, groups[group])
                self._load_share(group, groups[group])
        self.step_number = step
        self._alike = False

    def _load_weights(self, arrays: dict[str, Array]) -> None:
        if self.cut is not None:
            self._load_share("weights", arrays)
            return
        for path, view in self.parameters.views.items():
            view[...] = to_device(arrays[path].astype(view.dtype), self.settings.device)

    def _load_share(self, group: str, arrays: dict[str, Array]) -> None:
        held = self._share(group)
        for path, (place, _) in held.places.items():
            numbers = arrays[path].reshape(-1)
            for n in stretches(slice(0, len(numbers))):
                if self.workers.cut:
                    self._ask("_take", group, place.start + n.start, numbers[n])
                else:
                    held.take(place.start + n.start, numbers[n])

    def groups(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint holds. Vectors of which every worker has a part come piece by piece when they are read."""
        weights = self.parameters.views if self.cut is None else self._leaves("weights")
        return {"weights": weights, "moment1": self._leaves("moment1"), "moment2": self._leaves("moment2")}

    def weights(self) -> dict[str, Array]:
        """All weights by path: arrays of the host where each worker has a part of them, gathered for who asks."""
        leaves = self.groups()["weights"]
        return {path: x.whole() if isinstance(x, Gathered) else x for path, x in leaves.items()}

    def tree(self) -> Tree:
        """The parameters of the whole model, for what is done with them beside the training."""
        return self.parameters.tree if self.cut is None else from_names(self.shapes, self.weights())

    @contextmanager
    def lent(self) -> Iterator[Tree]:
        """The parameters for what all workers do together, a layer being there while it is gone through."""
        if self.cut is None:
            yield self.parameters.tree
            return
        with self.cut.lent() as p:
            yield p

    def _leaves(self, group: str) -> dict[str, Any]:
        held = self._share(group)
        if not self.workers.cut:
            return held.views
        return held.gathered(lambda n: [part for parts in self._ask("_held_of", group, n) for part in parts])

    def _share(self, group: str) -> Share:
        if group in MOMENTS:
            return self.m if group == MOMENTS[0] else self.v
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
