"""Laws of recurrent layers: in one direction and in both, stacked, with padding, dropout and a carried state."""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.blocks.recurrent import (
    bidirectional,
    initial_recurrent,
    recurrent,
    recurrent_layers,
    recurrent_layers_shapes,
    recurrent_shapes,
    recurrent_state_shapes,
)
from refllm.parameters import Tree, map_leaves, named_leaves
from spec_tests.gradients import assert_gradients_agree, assert_pure, random_tree

CELLS = ("rnn", "lstm")
every_cell = pytest.mark.parametrize("cell", CELLS)
both_ways = pytest.mark.parametrize("two_way", [False, True], ids=["forward", "bidirectional"])
VALID = {"whole": None, "padded": numpy.array([[True, True, False], [False, True, True]])}


def stack(
    cell: str,
    *,
    two_way: bool,
    token_mask: Any = None,
    dropout_mask: Any = None,
    layers: int = 2,
    B: int = 2,
    T: int = 3,
) -> tuple[Any, Tree]:
    """The layers as a function of one tree, and its shapes."""

    def block(a: Tree) -> Any:
        y, back = recurrent_layers(
            a["x"], a["p"], cell=cell, token_mask=token_mask, states=None, dropout_mask=dropout_mask, rate=0.3
        )
        return y, lambda dy: dict(zip(("x", "p"), back(dy), strict=True))

    return block, {
        "x": (B, T, 3), "p": recurrent_layers_shapes(3, 2, layers=layers, cell=cell, bidirectional=two_way)
    }  # fmt: skip


def draws(two_way: bool, layers: int = 2) -> Any:
    return numpy.random.default_rng(5).random((layers, 2, 3, 4 if two_way else 2)) < 0.7


@every_cell
@both_ways
@pytest.mark.parametrize("token_mask", VALID.values(), ids=VALID)
@pytest.mark.parametrize("drop", [False, True], ids=["no dropout", "dropout"])
def test_gradients_agree_with_differences(cell: str, two_way: bool, token_mask: Any, drop: bool) -> None:
    block, shapes = stack(cell, two_way=two_way, token_mask=token_mask, dropout_mask=draws(two_way) if drop else None)
    assert_gradients_agree(block, random_tree(shapes, seed=1), seed=2)


@every_cell
@both_ways
@pytest.mark.parametrize(("layers", "B", "T"), [(1, 1, 1), (3, 1, 4), (2, 3, 1)])
def test_gradients_agree_with_differences_at_odd_sizes(cell: str, two_way: bool, layers: int, B: int, T: int) -> None:
    block, shapes = stack(cell, two_way=two_way, layers=layers, B=B, T=T)
    assert_gradients_agree(block, random_tree(shapes, seed=1), seed=2)


@every_cell
@both_ways
def test_arguments_are_only_read_and_back_repeats_itself(cell: str, two_way: bool) -> None:
    block, shapes = stack(cell, two_way=two_way, token_mask=VALID["padded"])
    assert_pure(block, random_tree(shapes, seed=1))


@every_cell
@both_ways
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_and_shapes_are_kept(cell: str, two_way: bool, dtype: str) -> None:
    block, shapes = stack(cell, two_way=two_way, token_mask=VALID["padded"])
    y, back = block(map_leaves(lambda leaf: leaf.astype(dtype), random_tree(shapes, seed=1)))
    assert (y.shape, y.dtype) == ((2, 3, 4 if two_way else 2), dtype)
    got = [(name, d.shape, d.dtype) for name, d in named_leaves(back(numpy.ones_like(y)))]
    assert got == [(name, shape, dtype) for name, shape in named_leaves(shapes)]


@every_cell
def test_the_backward_states_are_the_forward_states_of_the_text_read_backwards(cell: str) -> None:
    p = random_tree({"forward": recurrent_shapes(3, 2, cell=cell), "backward": recurrent_shapes(3, 2, cell=cell)}, 0)
    x = numpy.random.default_rng(0).standard_normal((2, 5, 3))
    y, _ = bidirectional(x, p, cell=cell, token_mask=None)
    ahead, _ = recurrent(x, p["forward"], cell=cell, token_mask=None, state=None)
    behind, _ = recurrent(x[:, ::-1], p["backward"], cell=cell, token_mask=None, state=None)
    assert numpy.array_equal(y, numpy.concatenate([ahead, behind[:, ::-1]], axis=-1))


@every_cell
@both_ways
@settings(max_examples=10)
@given(
    left=st.lists(st.integers(0, 3), min_size=2, max_size=2), right=st.lists(st.integers(0, 2), min_size=2, max_size=2)
)
def test_a_padded_text_has_the_states_that_it_has_alone(
    cell: str, two_way: bool, left: list[int], right: list[int]
) -> None:
    _, shapes = stack(cell, two_way=two_way)
    p, x = random_tree(shapes["p"], 0), numpy.random.default_rng(0).standard_normal((2, 6, 3))
    place = numpy.arange(6)
    token_mask = (place >= numpy.array(left)[:, None]) & (place < 6 - numpy.array(right)[:, None])
    how: dict[str, Any] = {"cell": cell, "states": None, "dropout_mask": None, "rate": 0.0}
    y, _ = recurrent_layers(x, p, token_mask=token_mask, **how)
    for row in range(2):
        alone, _ = recurrent_layers(x[row : row + 1][:, token_mask[row]], p, token_mask=None, **how)
        numpy.testing.assert_allclose(y[row, token_mask[row]], alone[0], rtol=1e-12, atol=1e-14)


@every_cell
@settings(max_examples=10)
@given(chunks=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_a_carried_state_makes_pieces_the_whole(cell: str, chunks: list[int]) -> None:
    _, shapes = stack(cell, two_way=False)
    p, x = random_tree(shapes["p"], 0), numpy.random.default_rng(0).standard_normal((2, sum(chunks), 3))
    how: dict[str, Any] = {"cell": cell, "token_mask": None, "dropout_mask": None, "rate": 0.0}
    whole, _ = recurrent_layers(x, p, states=None, **how)
    states = [map_leaves(lambda s: numpy.zeros((2, *s)), recurrent_state_shapes(2, cell=cell)) for _ in p]
    ends = itertools.accumulate(chunks)
    pieces = [
        recurrent_layers(x[:, end - n : end], p, states=states, **how)[0] for n, end in zip(chunks, ends, strict=True)
    ]
    numpy.testing.assert_allclose(numpy.concatenate(pieces, axis=1), whole, rtol=1e-12, atol=1e-14)
    assert numpy.array_equal(states[-1]["h"], pieces[-1][:, -1])


@every_cell
def test_dropout_after_a_layer_never_touches_its_own_next_step(cell: str) -> None:
    """All of the first layer dropped leaves the second with no input; its own states are those without dropout."""
    _, shapes = stack(cell, two_way=False)
    p, x = random_tree(shapes["p"], 0), numpy.random.default_rng(0).standard_normal((2, 3, 3))
    dropout_mask = numpy.ones((2, 2, 3, 2), bool)
    dropout_mask[0, :, 1:] = False  # of the first layer at all but the first step
    how: dict[str, Any] = {"cell": cell, "token_mask": None, "states": None, "rate": 0.5}
    y, _ = recurrent_layers(x, p, dropout_mask=list(dropout_mask), **how)
    below, _ = recurrent(x, p[0], cell=cell, token_mask=None, state=None)
    above, _ = recurrent(2 * below * dropout_mask[0], p[1], cell=cell, token_mask=None, state=None)
    numpy.testing.assert_allclose(y, 2 * above, rtol=1e-13)


@every_cell
@both_ways
def test_initial_matrices_are_uniform_and_forget_gates_open(cell: str, two_way: bool) -> None:
    """Deviation 1/√inputs, so within √(3 / inputs); biases 0, those of the forget gates 1."""
    N = 32
    shapes = recurrent_layers_shapes(20, N, layers=2, cell=cell, bidirectional=two_way)
    leaves = list(initial_recurrent(shapes, numpy.random.default_rng(0), cell=cell, prefix=""))
    assert [(name, leaf.shape) for name, leaf in leaves] == list(named_leaves(shapes))
    for name, leaf in leaves:
        if leaf.ndim == 2:
            reach = numpy.sqrt(3 / len(leaf))
            assert 0.98 * reach < abs(leaf).max() <= reach, name
            assert leaf.std() == pytest.approx(1 / numpy.sqrt(len(leaf)), rel=0.1)
        else:
            assert leaf.reshape(-1, N).tolist() == [[i == 1 and cell == "lstm"] * N for i in range(len(leaf) // N)]
