"""Which numbers of a vector over all parameters each of several ranks keeps, where it keeps a piece of every layer.

The layers are the units that are gathered at a time; what is outside of all layers is one more, the first. The numbers
of a unit are runs of the vector of a FlatTree: the decayed ones, and the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

from refllm.parameters import Tree, named_leaves, placed

Run: TypeAlias = tuple[slice, slice]  # numbers of the vector, and where they are among those that are kept
OUTSIDE = 0  # the unit of what is in no layer


class Unit(NamedTuple):
    """Runs of the vector, and the piece of them, one after the other, that each rank keeps."""

    runs: tuple[slice, ...]
    pieces: tuple[slice, ...]

    @property
    def size(self) -> int:
        return self.pieces[-1].stop

    def places(self, n: slice) -> Iterator[Run]:
        """Where the numbers n of the unit are in the vector, and in the unit."""
        begin = 0
        for run in self.runs:
            start, stop = max(n.start, begin), min(n.stop, begin + length(run))
            if start < stop:
                yield slice(run.start + start - begin, run.start + stop - begin), slice(start, stop)
            begin += length(run)


class Pieces:
    """The units of a tree, cut over `count` ranks. Of all numbers no rank has more than one above another."""

    def __init__(self, shapes: Tree, count: int) -> None:
        self.count = count
        self.lists = layer_lists(shapes)
        self.first: dict[str, int] = {}  # the unit of the first layer of each list
        prefixes = [""]  # of the paths of a unit
        for path, layers in self.lists.items():
            self.first[path] = len(prefixes)
            prefixes += [f"{path}.{n}." for n in range(len(layers))]
        self.leaves: list[dict[str, slice]] = [{} for _ in prefixes]  # where each is in its unit, by the path there
        runs: list[list[slice]] = [[] for _ in prefixes]
        sizes = [0] * len(prefixes)
        of = {path: n for n, prefix in enumerate(prefixes) if prefix for path in self._paths(prefix)}
        places, split = placed(shapes)
        for path, (place, _) in places.items():
            unit = of.get(path, OUTSIDE)
            end = sizes[unit] + length(place)
            self.leaves[unit][path.removeprefix(prefixes[unit])] = slice(sizes[unit], end)
            sizes[unit] = end
            _add_run(runs[unit], place, split)
        self.units: list[Unit] = []
        dealt = 0
        for size, of_unit in zip(sizes, runs, strict=True):
            self.units.append(Unit(tuple(of_unit), _dealt(size, count, dealt)))
            dealt += size % count

    def _paths(self, prefix: str) -> list[str]:
        path, _, n = prefix.removesuffix(".").rpartition(".")
        return [leaf for leaf, _ in named_leaves(self.lists[path][int(n)], prefix.removesuffix("."))]

    @property
    def size(self) -> int:
        """Of the vector."""
        return sum(unit.size for unit in self.units)

    def of_unit(self, part: int, unit: int) -> slice:
        """Where a rank's piece of a unit is among all that it keeps."""
        start = sum(length(one.pieces[part]) for one in self.units[:unit])
        return slice(start, start + length(self.units[unit].pieces[part]))

    def kept(self, part: int) -> list[Run]:
        """What a rank keeps, unit by unit."""
        runs, at = [], 0
        for unit in self.units:
            for run, _ in unit.places(unit.pieces[part]):
                runs.append((run, slice(at, at + length(run))))
                at += length(run)
        return runs

    @cached_property
    def ends(self) -> frozenset[int]:
        """Where a run that some rank keeps begins or ends."""
        runs = [run for part in range(self.count) for run, _ in self.kept(part)]
        return frozenset(end for run in runs for end in (run.start, run.stop))


def layer_lists(shapes: Tree, prefix: str = "") -> dict[str, list[Tree]]:
    """The lists of a tree that are in no other list, by path."""
    if isinstance(shapes, list):
        return {prefix: shapes}
    found: dict[str, list[Tree]] = {}
    if isinstance(shapes, dict):
        for name, child in shapes.items():
            found |= layer_lists(child, f"{prefix}.{name}" if prefix else name)
    return found


def _add_run(runs: list[slice], place: slice, split: int) -> None:
    """One more place of a unit, which lengthens its last run where it follows on it, decayed as it is or not."""
    if runs and runs[-1].stop == place.start != split:
        runs[-1] = slice(runs[-1].start, place.stop)
    else:
        runs.append(place)


def _dealt(size: int, count: int, dealt: int) -> tuple[slice, ...]:
    """Pieces of a unit, one a rank. Those that are longer by one are dealt in turn, after so many before."""
    longer = {(dealt + n) % count for n in range(size % count)}
    pieces, at = [], 0
    for part in range(count):
        stop = at + size // count + (part in longer)
        pieces.append(slice(at, stop))
        at = stop
    return tuple(pieces)


def cut_at(runs: Sequence[Run], ends: Sequence[int]) -> list[Run]:
    """The runs, each cut where one of `ends`, in their order, lies within it."""
    cut = []
    for run, own in runs:
        stops = [end for end in ends if run.start < end < run.stop]
        for start, stop in zip([run.start, *stops], [*stops, run.stop], strict=True):
            cut.append((slice(start, stop), slice(own.start + start - run.start, own.start + stop - run.start)))
    return [(run, own) for run, own in cut if run.start < run.stop]


def length(n: slice) -> int:
    return int(n.stop - n.start)
