"""Laws of vectors that are cut over the ranks: less memory, and not one other bit."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from refllm import checkpoint, piecewise
from refllm.moments import Share, gathered, one_run
from refllm.ranks import Ranks
from refllm.workers import Workers
from spec_tests.ranks_in_threads import on_ranks
from spec_tests.test_ranks import MODELS, followed, together, trained, trainer_of

SHAPES = {"W": (3, 4), "b": (5,), "deep": [{"U": (2, 2)}, {"g": (3,)}]}
SIZE = 24


@pytest.mark.parametrize("model", sorted(MODELS))
def test_cut_moments_change_no_bit(model: str) -> None:
    """Losses and weights of every rank; the norm of the gradient is clipped, from the squares of the pieces."""
    (whole, _), (cut, _) = (together(model, 3, 3, shard=shard, clip=0.05) for shard in (None, "optimizer"))
    for one, other in zip(whole, cut, strict=True):
        assert one.tobytes() == other.tobytes()


def test_gradients_whose_squares_overflow_are_clipped_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import refllm.train

    monkeypatch.setattr(refllm.train, "square", lambda g, scale: g[:1].sum() * 0 + (math.inf if scale is None else
                        (g / scale) @ (g / scale)))  # fmt: skip
    (whole, _), (cut, _) = (together("gpt", 3, 2, shard=shard, clip=0.05) for shard in (None, "optimizer"))
    for one, other in zip(whole, cut, strict=True):
        assert one.tobytes() == other.tobytes()
    assert numpy.isfinite(cut[0]).all()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_rank_keeps_the_moments_of_its_piece(count: int) -> None:
    """Of P parameters of s bytes 2 P s / n, up to what n does not divide."""

    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            held = trainer.m.vector.nbytes + trainer.v.vector.nbytes
            return held, len(trainer.parameters.vector)

    found, _ = on_ranks(count, life, shard="optimizer")
    size = found[0][1]
    assert sum(held for held, _ in found) == 2 * 8 * size
    assert max(held for held, _ in found) <= 2 * 8 * math.ceil(size / count)


def stored(count: int, groups: Any, *, shard: str | None, steps: int, directory: Any) -> None:
    """Goes on with `groups`, if there are any, on so many ranks, and saves a checkpoint."""

    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            if workers.world.rank:
                return followed(workers, trainer)
            if groups is None:
                trainer.initialise()
            else:
                trainer.load(groups, step=3)
            trained(trainer, "gpt", steps)
            checkpoint.save(directory, {}, trainer.groups(), step=0)
            return workers.end()

    on_ranks(count, life, shard=shard)


def files(directory: Any) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.every
def test_a_checkpoint_is_whole_and_the_same_file_whatever_is_cut(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gathered in pieces that end within arrays; gone on with on another number of ranks, with each cut and without."""
    monkeypatch.setattr(piecewise, "PIECE", 7)
    for name, shard in (("whole", None), ("cut", "optimizer"), ("layers", "parameters")):
        stored(3, None, shard=shard, steps=3, directory=tmp_path / name)
    assert files(tmp_path / "whole") == files(tmp_path / "cut") == files(tmp_path / "layers")
    read = checkpoint.load(tmp_path / "cut")[1]
    groups = {group: read(group) for group in ("weights", "moment1", "moment2")}
    for name, shard in (("whole 2", None), ("cut 2", "optimizer"), ("layers 2", "parameters")):
        stored(2, groups, shard=shard, steps=2, directory=tmp_path / name)
    assert files(tmp_path / "whole 2") == files(tmp_path / "cut 2") == files(tmp_path / "layers 2")
    with Workers(1) as workers:
        trainer = trainer_of("gpt", workers)
        trainer.load(groups, step=3)
        trained(trainer, "gpt", 2)
        checkpoint.save(tmp_path / "one", {}, trainer.groups(), step=0)
    one, two = (checkpoint.load(tmp_path / name)[1] for name in ("one", "cut 2"))
    for group in groups:
        for path, x in one(group).items():
            numpy.testing.assert_allclose(two(group)[path], x, rtol=1e-9, atol=1e-12, err_msg=path)


@pytest.mark.parametrize("own", [slice(0, SIZE), slice(3, 14), slice(SIZE, SIZE), slice(7, 8)])
def test_a_stretch_takes_and_gives_its_own_numbers(own: slice) -> None:
    held = Share(SHAPES, one_run(own), numpy.zeros(own.stop - own.start))
    for start in range(0, SIZE, 5):
        held.take(start, numpy.arange(SIZE, dtype=float)[start : start + 5])
    numpy.testing.assert_array_equal(held.vector, numpy.arange(SIZE)[own])
    given = [part for n in range(0, SIZE, 5) for part in held.held_of(slice(n, n + 5))]
    for start, part in given:
        numpy.testing.assert_array_equal(part, numpy.arange(start, start + len(part)))
    assert sum(len(part) for _, part in given) == len(held.vector)


def test_a_stretch_has_no_leaves() -> None:
    with pytest.raises(ValueError, match="has no leaves"):
        _ = Share(SHAPES, one_run(slice(0, 5)), numpy.zeros(5)).views
    with pytest.raises(ValueError, match=r"must be \(5,\)"):
        Share(SHAPES, one_run(slice(0, 5)), numpy.zeros(4))


def test_a_gathered_array_is_asked_for_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piecewise, "PIECE", 4)
    x = gathered((2, 3), numpy.dtype("float32"), slice(4, 10), lambda n: [
        (n.start + 1, numpy.arange(n.start + 1, n.stop)), (n.start, numpy.arange(n.start, n.start + 1))
    ])  # fmt: skip
    assert [piece.tolist() for piece in x.pieces()] == [[4, 5, 6, 7], [8, 9]]
    assert x.whole().tolist() == [[4, 5, 6], [7, 8, 9]]
