"""Laws of parameters that are cut over the ranks: a layer at a time in memory, and not one other bit."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm import checkpoint, cut_parameters, piecewise
from refllm.backend import Reservation, can_release, generator
from refllm.borrowed import Borrowed
from refllm.cut_parameters import require_layers
from refllm.errors import UserError
from refllm.finetune.tuning import everything
from refllm.models import gpt, nnlm
from refllm.objectives.causal import Causal
from refllm.parameters import count
from refllm.pieces import OUTSIDE, length
from refllm.ranks import LOST, Ranks
from refllm.run import measures
from refllm.train import Trainer, evaluate
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.ranks_in_threads import Aborted, on_ranks
from spec_tests.test_ranks import MODELS, followed, numbers, stepped_together, together, trained, trainer_of

pytestmark = pytest.mark.skipif(not can_release(), reason="memory is given back on Linux alone")


class Spoiled(Reservation):
    """What is released is not a number: who reads a layer that is not there, or not there any more, shows it."""

    def __init__(self, size: int, dtype: str) -> None:
        super().__init__(size, dtype)
        self.vector[:] = numpy.nan

    def release(self, n: slice) -> None:
        self.vector[n] = numpy.nan


@pytest.fixture(autouse=True)
def _spoiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_parameters, "Reservation", Spoiled)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_cut_parameters_change_no_bit(model: str) -> None:
    """Losses and weights; the norm of the gradient is clipped, and one rank has no row of the last batch."""
    (whole, _), (cut, _) = (together(model, 3, 2, shard=shard, clip=0.05) for shard in (None, "parameters"))
    assert whole[0].tobytes() == cut[0].tobytes()


def test_a_fit_of_a_whole_model_clips_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trainer has the leaves by path, and as a tree where layers are gathered: the norm has the same summands."""
    model, config, objective, texts = MODELS["encoder_decoder"]
    tuning = everything(model=model, config=config, parameters=None)
    monkeypatch.setitem(MODELS, "fit", (tuning.model, config, tuning.wrap(objective), texts))
    (whole, _), (cut, _) = (together("fit", 3, 2, shard=shard, clip=0.05) for shard in (None, "parameters"))
    assert whole[0].tobytes() == cut[0].tobytes()


def test_ranks_without_rows_change_no_bit() -> None:
    (whole, _), (cut, _) = (together("gpt", 7, 1, shard=shard, clip=0.05) for shard in ("optimizer", "parameters"))
    assert whole[0].tobytes() == cut[0].tobytes()


def test_squares_that_overflow_are_clipped_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import refllm.train

    monkeypatch.setattr(refllm.train, "square", lambda g, scale: g[:1].sum() * 0 + (math.inf if scale is None else
                        (g / scale) @ (g / scale)))  # fmt: skip
    (whole, _), (cut, _) = (together("gpt", 3, 2, shard=shard, clip=0.05) for shard in (None, "parameters"))
    assert whole[0].tobytes() == cut[0].tobytes()
    assert numpy.isfinite(cut[0]).all()


def test_a_step_sends_layers_twice_what_is_outside_once_and_the_gradient_once() -> None:
    """Each (n - 1) / n of its numbers a rank, which docs/distributed.md says."""
    n, found = 3, []
    for steps in (1, 3):
        _, meeting = together("gpt", n, steps, shard="parameters")
        found.append(sum(meeting.bytes))
    shapes = MODELS["gpt"][0].shapes(MODELS["gpt"][1])
    size, layers = count(shapes), count(shapes["layers"])
    assert (found[1] - found[0]) / 2 == 8 * (n - 1) * (2 * size + layers)


@pytest.mark.parametrize("ranks", [2, 7])
def test_a_rank_keeps_its_share_of_everything_and_has_one_layer_more_at_a_time(ranks: int) -> None:
    """Parameters, gradient and two moments, 4 P s / n; gathered are what is outside of the layers, and one layer."""

    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            assert trainer.cut is not None
            p, there, most = trainer.cut, set[int](), [0]
            bring, drop = p.bring, p.drop

            def brings(unit: int) -> None:
                there.add(unit)
                most[0] = max(most[0], sum(p.pieces.units[one].size for one in there))
                bring(unit)

            def drops(unit: int) -> None:
                there.remove(unit)
                drop(unit)

            p.bring, p.drop = brings, drops  # type: ignore[method-assign]
            stepped_together(workers, trainer)
            workers.end()
            assert not there
            held = sum(x.nbytes for x in (p.own.vector, p.gradient, trainer.m.vector, trainer.v.vector))
            return [held, most[0], p.pieces.units[OUTSIDE].size + max(unit.size for unit in p.pieces.units[1:])]

    found, _ = on_ranks(ranks, life, shard="parameters")
    size = count(MODELS["gpt"][0].shapes(MODELS["gpt"][1]))
    assert sum(held for held, _, _ in found) == 4 * 8 * size
    assert max(held for held, _, _ in found) <= 4 * 8 * math.ceil(size / ranks)
    assert all(most == outside_and_one for _, most, outside_and_one in found)


@pytest.mark.every
def test_nobody_has_the_whole_model_when_it_begins_is_kept_saved_put_back_or_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What all ranks together allocate beyond what they keep then: a leaf or two, and not a fourth of the model."""
    monkeypatch.setattr(piecewise, "PIECE", 1 << 12)
    config = tiny.config(vocabulary=11, layers=8, width=64, hidden=256)
    size = 8 * count(gpt.shapes(config))

    def beyond(f: Callable[[], Any], *, keeps: int = 0) -> float:
        """In sizes of the model; of the weights so many are kept more or less than before."""
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        f()
        return (tracemalloc.get_traced_memory()[1] - before) / size - max(0, keeps)

    def life(workers: Ranks) -> Any:
        with workers:
            settings = tiny.settings(dtype="float64")
            trainer = Trainer(
                model=gpt, config=config, objective=Causal(gpt, config), settings=settings, workers=workers
            )
            if workers.world.rank:
                return followed(workers, trainer)

            def save() -> None:
                checkpoint.save(tmp_path, {}, {**trainer.groups(), **trainer.best()}, step=0)

            def go_on() -> None:
                files, read = checkpoint.load(tmp_path)
                trainer.load({group: read.piecewise(group) for group in files["files"]}, step=1)

            checkpoint.save(tmp_path / "another", {}, {}, step=0)  # what is imported for it is
            parts = [
                beyond(trainer.initialise), beyond(trainer.keep_best, keeps=1), beyond(save),
                beyond(trainer.end_with_best), beyond(go_on, keeps=1), beyond(trainer.end_with_best), beyond(save),
            ]  # fmt: skip
            whole = beyond(lambda: [x.whole() for x in trainer.groups()["weights"].values()])
            workers.end()
            return [*parts, whole]

    tracemalloc.start()
    try:
        (found, *_), _ = on_ranks(4, life, shard="parameters")
    finally:
        tracemalloc.stop()
    assert (found[:-1] < 0.25).all(), found
    assert found[-1] > 1  # which is how it would show


def test_the_best_weights_are_put_back_to_the_bit_and_gone_on_with_as_pieces(tmp_path: Path) -> None:
    """Kept by the ranks whose they are, they are saved as those of ranks that have them whole."""

    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            if workers.world.rank:
                return followed(workers, trainer)
            trainer.initialise()
            trained(trainer, "gpt", 1)
            best = numbers(trainer)
            trainer.keep_best()
            trained(trainer, "gpt", 2)
            folder = tmp_path / str(trainer.workers.layered)
            checkpoint.save(folder, {}, {**trainer.groups(), **trainer.best()}, step=0)
            last = numbers(trainer)
            trainer.end_with_best()
            assert numbers(trainer) == best != last
            assert not trainer.keeps_best
            files, read = checkpoint.load(folder)
            trainer.load({group: read.piecewise(group) for group in files["files"]}, step=3)
            assert numbers(trainer) == last
            assert trainer.keeps_best
            trainer.end_with_best()
            workers.end()
            assert numbers(trainer) == best if trainer.cut is None else True
            return [path.name for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"]

    names = [on_ranks(3, life, shard=shard)[0][0].tolist() for shard in (None, "parameters")]
    assert names[0] == names[1]
    assert len(names[0]) == 4


def test_leaves_that_are_not_those_of_the_model_are_refused() -> None:
    with Workers(1) as workers:
        trainer = trainer_of("gpt", workers)
        leaves = list(gpt.initial_leaves(MODELS["gpt"][1], generator(0)))
        for wrong in (leaves[1:], [*leaves, ("more", leaves[0][1])], [(leaves[0][0], leaves[0][1][1:]), *leaves[1:]]):
            with pytest.raises(UserError, match="the checkpoint is not one of this model"):
                trainer.load_weights(wrong)


def test_what_is_held_out_is_measured_alike_however_many_batches_there_are() -> None:
    model, config, _, texts = MODELS["gpt"]

    class Task:
        def validate(self, p: Any, *, device: str, workers: Any, most: int | None) -> float:
            windows = [(texts(n)[:, :-1], texts(n)[:, 1:]) for n in range(most or 0)]
            return evaluate(p, windows, model=model, config=config, device=device, workers=workers)

    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            measured: Any = lambda most: measures(Task(), trainer, most)  # type: ignore[arg-type]
            if workers.world.rank:
                return followed(workers, trainer, measured)
            trainer.initialise()
            trained(trainer, "gpt", 1)
            found = [workers.validate(measured, trainer.vector, most) for most in (0, 1, 2, 3, 4)]
            workers.end()
            return found

    (found, *_), (expected, *_) = (on_ranks(3, life, shard=one)[0] for one in ("parameters", None))
    assert found.tolist() == expected.tolist()
    assert (numpy.diff(found) > 0).all()


def test_a_rank_that_fails_at_a_layer_ends_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            if workers.world.rank:
                trainer._rows = lambda *arguments: 1 / 0  # type: ignore[method-assign, assignment]
            stepped_together(workers, trainer)

    with pytest.raises(Aborted, match="2"):
        on_ranks(2, life, shard="parameters")
    assert "rank 1: division by zero; what was saved before is whole" in capsys.readouterr().err


def test_a_rank_that_finds_another_gone_ends_the_job_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """MPI raises then. What has happened to the other is said by `--ranks`."""
    gone = type("Exception", (RuntimeError,), {"__module__": "mpi4py.MPI"})

    def fails(*arguments: Any) -> Any:
        raise gone("Other MPI error")

    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            if workers.world.rank == 0:
                trainer._rows = fails  # type: ignore[method-assign, assignment]
            stepped_together(workers, trainer)

    with pytest.raises(Aborted, match=str(LOST)):
        on_ranks(2, life, shard="parameters")
    assert "rank 0" not in capsys.readouterr().err


def test_a_rank_that_fails_at_a_measure_ends_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    def life(workers: Ranks) -> Any:
        with workers:
            workers._together = True
            workers.map(lambda n: n / (n - 1), range(3))

    with pytest.raises(Aborted, match="2"):
        on_ranks(2, life, shard="parameters")
    assert "rank 1: division by zero" in capsys.readouterr().err


def test_a_model_that_does_not_go_through_its_layers_one_by_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It would read memory that is not there."""

    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            assert trainer.cut is not None
            layers = trainer.cut._tree["layers"]
            assert isinstance(layers, Borrowed)
            trainer.cut._tree["layers"] = [dict(layer) for layer in layers]
            original = trainer.cut.finish
            trainer.cut.finish = lambda dp: original({**dp, "layers": []})  # type: ignore[method-assign, assignment]
            stepped_together(workers, trainer)

    with pytest.raises(Aborted, match="2"):
        on_ranks(2, life, shard="parameters")
    assert "layers of this model are not gone through one by one; use --shard optimizer" in capsys.readouterr().err


def test_what_cannot_be_cut_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = MODELS["gpt"][0].shapes(MODELS["gpt"][1])
    flat = nnlm.shapes(nnlm.Config(vocabulary=5, context=4, order=3, width=2, hidden=2))
    with pytest.raises(UserError, match="what is trained here has none; use --shard optimizer"):
        require_layers(flat, "cpu")
    with pytest.raises(UserError, match="works on --device cpu, not on a GPU; use --shard optimizer"):
        require_layers(shapes, "cuda")
    monkeypatch.setattr(cut_parameters, "can_release", lambda: False)
    with pytest.raises(UserError, match="needs Linux"):
        require_layers(shapes, "cpu")


def test_released_memory_goes_and_what_is_written_again_is_there() -> None:
    """Measured as the system counts it, a vector of 32 MB of which the pages of two others' numbers stay."""
    size, whole = 1 << 22, slice(100, (1 << 22) - 100)
    reservation = Reservation(size, "float64")
    empty = resident()
    view = reservation.vector[whole].reshape(-1, 4)
    reservation.vector[:] = 1
    full = resident()
    assert full - empty > 0.9 * 8 * size
    reservation.release(whole)
    assert resident() - empty < 0.1 * 8 * size
    assert (reservation.vector[:100] == 1).all()
    assert view.sum() < 4 * length(slice(0, 4096))
    view[...] = 2
    assert (reservation.vector[whole] == 2).all()


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
