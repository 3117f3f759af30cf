"""Laws of ranks: processes that share a batch, here threads of one process with a memory each."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy
import pytest

from refllm import ranks
from refllm.backend import to_host
from refllm.errors import UserError
from refllm.models import bert, encoder_decoder, gpt, switch
from refllm.objectives.causal import Causal
from refllm.objectives.pretraining import Pretraining
from refllm.objectives.seq2seq import Seq2Seq
from refllm.ranks import END, PART, VALIDATION, Ranks
from refllm.train import Trainer
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.language_models import tiny_switch
from spec_tests.objectives import encoder_batch, test_seq2seq
from spec_tests.ranks_in_threads import Aborted, on_ranks

STEPS = 100
GPT = tiny.config(vocabulary=11, dropout=0.1)
SWITCH = tiny_switch(vocabulary=11)


def texts(step: int, config: Any) -> Any:
    """A batch of five texts, so that no number of ranks but one and five divides it."""
    return numpy.random.default_rng(step).integers(0, 11, (5, config.context + 1))


MODELS: dict[str, tuple[Any, Any, Any, Any]] = {
    "gpt": (gpt, GPT, Causal(gpt, GPT), lambda step: texts(step, GPT)),
    "bert": (
        bert, encoder_batch.CONFIG, Pretraining(bert, encoder_batch.CONFIG), encoder_batch.batch
    ),
    "encoder_decoder": (
        encoder_decoder, test_seq2seq.CONFIG,
        Seq2Seq(encoder_decoder, test_seq2seq.CONFIG, start=test_seq2seq.START), lambda step: test_seq2seq.BATCH,
    ),
    "switch": (switch, SWITCH, Causal(switch, SWITCH), lambda step: texts(step, SWITCH)),
}  # fmt: skip


def trainer_of(model: str, workers: Workers, **changes: Any) -> Trainer:
    module, config, objective, _ = MODELS[model]
    settings = tiny.settings(**{"dtype": "float64", "lr": 1e-3, **changes})
    return Trainer(model=module, config=config, objective=objective, settings=settings, workers=workers)


def numbers(trainer: Trainer) -> list[float]:
    """The parameters in the order of the vector; where they are cut, the leader gathers them."""
    if trainer.cut is not None:
        weights = trainer.groups()["weights"]
        return [float(x) for path in trainer.cut.own.places for x in weights[path].whole().reshape(-1)]
    return [float(x) for x in to_host(trainer.parameters.vector)]


def alone(model: str, steps: int) -> list[float]:
    with Workers(1) as workers:
        trainer = trainer_of(model, workers)
        trainer.initialise()
        return [*trained(trainer, model, steps), *numbers(trainer)]


def trained(trainer: Trainer, model: str, steps: int) -> list[float]:
    return [float(trainer.step(MODELS[model][3](step), lr=1e-3)) for step in range(steps)]


def stepped_together(workers: Ranks, trainer: Trainer) -> None:
    """One step of a GPT: the first rank asks for it, and the others follow."""
    if workers.world.rank:
        followed(workers, trainer)
    else:
        trainer.initialise()
        trained(trainer, "gpt", 1)


def followed(workers: Ranks, trainer: Trainer, measured: Any = None) -> None:
    """The life of a rank that does not lead."""
    measured = measured or measured_by(workers, trainer)
    while True:
        what, about = workers.world.bcast(None)
        if what == END:
            return
        if what == PART:
            workers.world.gather(workers.carried_out(trainer._part, *about))
        elif what == VALIDATION:
            workers.validate_together(measured, trainer.vector, about)


def measured_by(workers: Ranks, trainer: Trainer) -> Any:
    return lambda most: sum(workers.map(lambda n: n * float(trainer.parameters.vector[n]), range(most or 0)))


def together(
    model: str, count: int, steps: int, *, shard: str | None = None, settled: Any = lambda workers: None, **changes: Any
) -> tuple[list[Any], Any]:
    """Losses and parameters of the leader, and the parameters of every rank; `settled` prepares each."""

    def life(workers: Ranks) -> Any:
        with workers:
            settled(workers)
            trainer = trainer_of(model, workers, **changes)
            if workers.world.rank:
                followed(workers, trainer)
                return [] if workers.layered else numbers(trainer)
            trainer.initialise()
            losses = trained(trainer, model, steps)
            trainer.require_alike()
            found = [*losses, *numbers(trainer)]
            workers.end()
            return found

    return on_ranks(count, life, shard=shard)


@pytest.mark.one_in(18)
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_so_many_ranks_train_as_one_process_does(model: str, count: int) -> None:
    """100 steps, shards of unequal size, in float64: what is left is the order of sums."""
    found, _ = together(model, count, STEPS)
    expected = numpy.array(alone(model, STEPS))
    numpy.testing.assert_allclose(found[0], expected, rtol=1e-7, atol=1e-9)
    for other in found[1:]:
        numpy.testing.assert_array_equal(other, found[0][STEPS:])


def test_more_ranks_than_texts_leave_some_without_any() -> None:
    found, _ = together("gpt", 7, 3)
    numpy.testing.assert_allclose(found[0], numpy.array(alone("gpt", 3)), rtol=1e-9, atol=1e-12)


def test_the_same_number_of_ranks_gives_the_same_bits() -> None:
    one, other = (together("gpt", 3, 5)[0] for _ in range(2))
    for a, b in zip(one, other, strict=True):
        numpy.testing.assert_array_equal(a, b)


def test_how_many_numbers_are_added_up_at_a_time_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = together("gpt", 3, 2)
    monkeypatch.setattr(ranks, "AT_A_TIME", 101)
    parts, meeting = together("gpt", 3, 2)
    for one, other in zip(whole, parts, strict=True):
        numpy.testing.assert_array_equal(one, other)
    assert sum(meeting.bytes) == 2 * 2 * 2 * 8 * len(whole[1])


@pytest.mark.parametrize("shard", [None, "optimizer"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_step_sends_what_an_allreduce_sends(count: int, shard: str | None) -> None:
    """2 (n - 1) / n of the gradient a rank, up to the numbers that n does not divide."""
    (_, few), (_, more) = together("gpt", count, 1, shard=shard), together("gpt", count, 3, shard=shard)
    size = len(together("gpt", count, 0)[0][1])
    sent = (sum(more.bytes) - sum(few.bytes)) / 2
    assert sent == 2 * (count - 1) * size * 8


@pytest.mark.parametrize("shard", [None, "optimizer"])
@pytest.mark.parametrize("where", [0, -1])
def test_a_rank_whose_weights_have_changed_is_noticed(where: int, shard: str | None) -> None:
    """By one bit, in its own stretch or in that of another."""

    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            if workers.world.rank:
                original = trainer._fingerprint

                def spoiled(part: int) -> str:
                    trainer.parameters.vector[where:][:1].view("uint8")[0] ^= 1
                    return original(part)

                trainer._fingerprint = spoiled  # type: ignore[method-assign]
                followed(workers, trainer)
                return []
            trainer.initialise()
            trained(trainer, "gpt", 1)
            with pytest.raises(UserError, match="weights of rank 1 are not those of rank 0"):
                trainer.require_alike()
            workers.end()
            return []

    on_ranks(2, life, shard=shard)


def test_an_error_of_a_rank_reaches_the_leader_and_all_go_on() -> None:
    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            if workers.world.rank:
                original = trainer._shard

                def fails_once(part: int, *arguments: Any) -> Any:
                    trainer._shard = original  # type: ignore[method-assign]
                    raise UserError("no memory for this shard")

                trainer._shard = fails_once  # type: ignore[method-assign, assignment]
                followed(workers, trainer)
                return []
            trainer.initialise()
            with pytest.raises(UserError, match="no memory for this shard"):
                trained(trainer, "gpt", 1)
            assert math.isfinite(trained(trainer, "gpt", 1)[0])
            workers.end()
            return []

    on_ranks(2, life)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("phase", sorted(ranks.EXCHANGING))
def test_a_rank_that_fails_while_others_wait_for_it_ends_the_job(
    phase: str, rank: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            if workers.world.rank == rank:

                def fails(*arguments: Any) -> None:
                    raise MemoryError("no room for what comes")

                setattr(trainer, phase, fails)
            stepped_together(workers, trainer)

    with pytest.raises(Aborted, match="2"):
        on_ranks(2, life)
    said = f"refllm: rank {rank}: no room for what comes; what was saved before is whole"
    assert said in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_measured_is_shared_and_the_same(count: int) -> None:
    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            if workers.world.rank:
                followed(workers, trainer)
                return []
            trainer.initialise()
            measured = workers.validate(measured_by(workers, trainer), trainer.parameters.vector, 50)
            workers.end()
            return [measured, sum(n * float(trainer.parameters.vector[n]) for n in range(50))]

    found, _ = on_ranks(count, life)
    assert found[0][0] == found[0][1] != 0


def test_loading_makes_all_ranks_alike_again() -> None:
    def life(workers: Ranks) -> Any:
        with workers:
            trainer = trainer_of("gpt", workers)
            if workers.world.rank:
                followed(workers, trainer)
                return numbers(trainer)
            trainer.initialise()
            trained(trainer, "gpt", 1)
            trainer.initialise()
            trained(trainer, "gpt", 1)
            workers.end()
            return numbers(trainer)

    found, _ = on_ranks(2, life)
    numpy.testing.assert_array_equal(found[0], found[1])


def test_a_process_that_mpiexec_has_not_started_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ranks._COUNTS, *ranks._NUMBERS):
        monkeypatch.delenv(name, raising=False)
    assert (ranks.count(), ranks.number()) == (1, 0)
    assert type(ranks.workers(2, 1)) is Workers
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setenv("PMI_RANK", "3")
    assert (ranks.count(), ranks.number()) == (4, 3)


def test_without_mpi4py_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(UserError, match=r"need mpi4py.*install"):
        ranks.communicator()
