"""Laws of pieces: every number of every layer is kept by one rank, and no rank keeps much more than another."""

from __future__ import annotations

import numpy
from hypothesis import given
from hypothesis import strategies as st

from refllm.parameters import Tree, count, named_leaves, placed
from refllm.pieces import OUTSIDE, Pieces, cut_at, layer_lists, length

leaves = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple)
layers = st.lists(st.dictionaries(st.sampled_from("abc"), leaves, min_size=1), max_size=3)
trees = st.fixed_dictionaries(
    {"token": leaves, "decoder": st.fixed_dictionaries({"layers": layers, "norm": leaves}), "layers": layers}
)


@given(trees, st.integers(1, 5))
def test_every_number_is_kept_once_and_shares_differ_by_one_at_most(shapes: Tree, ranks: int) -> None:
    pieces = Pieces(shapes, ranks)
    size = count(shapes)
    kept = [pieces.kept(part) for part in range(ranks)]
    numbers = [n for runs in kept for run, _ in runs for n in range(run.start, run.stop)]
    assert sorted(numbers) == list(range(size))
    shares = [sum(length(run) for run, _ in runs) for runs in kept]
    assert max(shares) - min(shares) <= 1
    assert pieces.size == size


@given(trees, st.integers(1, 5))
def test_a_unit_is_a_layer_or_what_is_in_none_and_its_leaves_lie_where_the_vector_has_them(
    shapes: Tree, ranks: int
) -> None:
    pieces, vector = Pieces(shapes, ranks), numpy.arange(count(shapes))
    places = placed(shapes)[0]
    assert len(pieces.units) == 1 + len(shapes["layers"]) + len(shapes["decoder"]["layers"])
    for number, unit in enumerate(pieces.units):
        of_unit = numpy.empty(unit.size, int)
        for place, n in unit.places(slice(0, unit.size)):
            of_unit[n] = vector[place]
        path, first = max(
            ((path, first) for path, first in pieces.first.items() if OUTSIDE < first <= number),
            key=lambda pair: pair[1], default=("", 0),
        )  # fmt: skip
        prefix = f"{path}.{number - first}." if path else ""
        for leaf, place in pieces.leaves[number].items():
            numpy.testing.assert_array_equal(of_unit[place], vector[places[prefix + leaf][0]])
        assert sum(map(length, pieces.leaves[number].values())) == unit.size


@given(trees, st.integers(1, 5))
def test_what_a_rank_keeps_lies_unit_by_unit(shapes: Tree, ranks: int) -> None:
    pieces = Pieces(shapes, ranks)
    for part in range(ranks):
        own = [n for number in range(len(pieces.units)) for n in [pieces.of_unit(part, number)]]
        assert [n.start for n in own[1:]] == [n.stop for n in own[:-1]]
        assert [n.start for _, n in pieces.kept(part)][1:] == [n.stop for _, n in pieces.kept(part)][:-1]


@given(trees, st.integers(1, 5), st.sets(st.integers(0, 40)))
def test_cut_runs_have_the_same_numbers_and_no_end_within(shapes: Tree, ranks: int, ends: set[int]) -> None:
    runs = Pieces(shapes, ranks).kept(0)
    cut = cut_at(runs, sorted(ends))
    for found, wanted in ((cut, runs),):
        assert [n for run, _ in found for n in range(run.start, run.stop)] == [
            n for run, _ in wanted for n in range(run.start, run.stop)
        ]
        assert [n for _, own in found for n in range(own.start, own.stop)] == [
            n for _, own in wanted for n in range(own.start, own.stop)
        ]
    assert not any(run.start < end < run.stop for run, _ in cut for end in ends)


def test_lists_within_layers_are_no_layers_of_their_own() -> None:
    shapes = {"layers": [{"both": [{"W": (2, 2)}, {"W": (2, 2)}]}, {"W": (3,)}]}
    assert list(layer_lists(shapes)) == ["layers"]
    pieces = Pieces(shapes, 2)
    assert [unit.size for unit in pieces.units] == [0, 8, 3]
    assert list(pieces.leaves[1]) == ["both.0.W", "both.1.W"]
    assert [path for path, _ in named_leaves(shapes)][:2] == ["layers.0.both.0.W", "layers.0.both.1.W"]
