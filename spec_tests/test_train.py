"""Laws of the trainer."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.models import gpt
from refllm.objectives.causal import Causal, causal_loss
from refllm.optim.update import adamw
from refllm.parameters import flatten, is_decayed, map_leaves, named_leaves
from refllm.train import LEAST_EPS, Settings, Trainer, evaluate, negative_log_likelihood
from refllm.workers import Workers
from spec_tests import tiny

CONFIG = tiny.config(vocabulary=11)


def tokens(B: int = 5, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, 11, (B, CONFIG.context + 1))


def trained(steps: int = 1, *, dropout: float = 0.0, lr: float = 0.01, **changes: Any) -> Trainer:
    made = tiny.settings(**changes)
    with Workers(made.shards) as workers:
        trainer = Trainer(
            model=gpt,
            config=tiny.config(vocabulary=11, dropout=dropout),
            objective=Causal(gpt, tiny.config(vocabulary=11, dropout=dropout)),
            settings=made,
            workers=workers,
        )
        trainer.initialise()
        for step in range(steps):
            trainer.step(tokens(seed=step), lr=lr)
    return trainer


def bits(trainer: Trainer) -> list[bytes]:
    return [flat.vector.tobytes() for flat in (trainer.parameters, trainer.m, trainer.v)]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("shards", [2, 3, 5, 8])
def test_the_number_of_shards_changes_the_gradient_by_rounding_only(shards: int, dropout: float) -> None:
    one, many = (trained(dropout=dropout, shards=n, dtype="float64", clip=math.inf) for n in (1, shards))
    assert tiny.largest_difference(one.gradient.tree, many.gradient.tree) < 1e-12
    assert one.norm > 0


def test_a_step_is_the_mean_loss_its_clipped_gradient_and_adamw_with_decay_of_matrices_only() -> None:
    """Once more from the parts, on trees."""
    s = tiny.settings(dtype="float64", clip=0.05, decay=0.3)
    with Workers(1) as workers:
        trainer = Trainer(model=gpt, config=CONFIG, objective=Causal(gpt, CONFIG), settings=s, workers=workers)
        trainer.initialise()
        before = map_leaves(numpy.copy, trainer.parameters.tree)
        batch = tokens()
        loss = trainer.step(batch, lr=0.02)
    y, back = causal_loss(
        before, model=gpt, ids=batch[:, :-1], targets=batch[:, 1:], ignore=None, config=CONFIG, dropout_mask=None
    )
    places = 5 * CONFIG.context
    gradient = back(numpy.array(1 / places))
    norm = math.sqrt(sum(float((g * g).sum()) for _, g in named_leaves(gradient)))
    assert norm > 0.05  # so that clipping acts
    assert loss == pytest.approx(y / places, rel=1e-13)
    assert trainer.norm == pytest.approx(norm, rel=1e-12)

    def moved(p: Any, g: Any) -> Any:
        zero = numpy.zeros_like(p)
        decay = 0.3 if is_decayed(p.shape) else 0.0
        return adamw(p, g * 0.05 / norm, zero, zero, step=1, lr=0.02, beta1=0.9, beta2=0.99, eps=1e-8, decay=decay)[0]

    assert tiny.largest_difference(map_leaves(moved, before, gradient), trainer.parameters.tree) < 1e-9


def test_biases_and_norms_do_not_decay_and_matrices_do() -> None:
    plain, decayed = (trained(decay=decay, dtype="float64") for decay in (0.0, 0.5))
    start = trained(steps=0, dtype="float64").parameters
    assert numpy.array_equal(plain.parameters.rest, decayed.parameters.rest)
    numpy.testing.assert_allclose(
        plain.parameters.decayed - decayed.parameters.decayed, 0.01 * 0.5 * start.decayed, rtol=1e-6, atol=1e-14
    )
    rest = {name.rpartition(".")[2] for name, view in start.views.items() if not is_decayed(view.shape)}
    assert rest == {"g", "b", "bqkv", "bo", "b1", "b2"}


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(dropout: float) -> None:
    one, again, other = (bits(trained(steps=3, dropout=dropout, shards=2, seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_forked_workers_and_threads_train_to_the_same_bits() -> None:
    """With dropout, and a batch that is smaller than the crew."""
    found = []
    for fork in (True, False):
        made = tiny.settings(shards=3)
        config = tiny.config(vocabulary=11, dropout=0.2)
        with Workers(3, fork=fork) as workers:
            trainer = Trainer(model=gpt, config=config, objective=Causal(gpt, config), settings=made, workers=workers)
            trainer.initialise()
            losses = [float(trainer.step(tokens(B=B, seed=B), lr=0.01)) for B in (5, 2, 3, 1)]
        found.append((losses, bits(trainer)))
    assert found[0] == found[1]


SHAPES = [(40, 16, CONFIG.width)] * 5


def test_dropout_draws_differ_from_step_to_step_and_keep_their_share() -> None:
    trainer = trained(steps=0, dropout=0.25)
    draws: list[Any] = []
    for step in (1, 2):
        draws.append(numpy.array(trainer._dropout_draws(SHAPES, step)))
    assert draws[0].shape == (5, 40, 16, CONFIG.width)
    assert (draws[0] != draws[1]).mean() == pytest.approx(2 * 0.25 * 0.75, abs=0.02)
    assert draws[0].mean() == pytest.approx(0.75, abs=0.01)
    assert trained(steps=0)._dropout_draws(SHAPES, 1) is None


def test_draws_have_the_shapes_that_are_asked_for() -> None:
    """And take the bits of the step in the order of the tree."""
    shapes = {"embedding": (2, 3, 4), "layers": [{"attention": (2, 5)}, {"attention": (0, 2)}]}
    trainer = trained(steps=0, dropout=0.5)
    found, in_a_row = trainer._dropout_draws(shapes, 1), trainer._dropout_draws((34,), 1)
    assert in_a_row is not None
    assert map_leaves(lambda draw: draw.shape, found) == shapes
    assert numpy.concatenate([draw.reshape(-1) for _, draw in named_leaves(found)]).tolist() == in_a_row.tolist()


@pytest.mark.parametrize("rate", [0.001, 0.999])
def test_even_an_extreme_rate_of_dropout_is_neither_all_nor_nothing(rate: float) -> None:
    dropout_mask: Any = numpy.array(trained(steps=0, dropout=rate)._dropout_draws([(100, 16, CONFIG.width)] * 5, 1))
    assert dropout_mask.mean() == pytest.approx(
        1 - rate, abs=5 * math.sqrt(rate * (1 - rate) / dropout_mask.size) + 2**-17
    )
    assert 0 < dropout_mask.sum() < dropout_mask.size


def test_a_few_steps_on_one_text_learn_it() -> None:
    with Workers(2) as workers:
        trainer = Trainer(
            model=gpt, config=CONFIG, objective=Causal(gpt, CONFIG), settings=tiny.settings(shards=2), workers=workers
        )
        trainer.initialise()
        cycle = (numpy.arange(CONFIG.context + 1) + numpy.arange(4)[:, None]) % 11
        losses = [float(trainer.step(cycle, lr=0.02)) for _ in range(60)]
    assert losses[0] == pytest.approx(math.log(11), abs=0.4)
    assert losses[-1] < 0.2


def test_a_step_writes_into_the_trainers_own_arrays_and_no_others() -> None:
    batch = tokens()
    batch.setflags(write=False)
    with Workers(1) as workers:
        trainer = Trainer(
            model=gpt, config=CONFIG, objective=Causal(gpt, CONFIG), settings=tiny.settings(), workers=workers
        )
        trainer.initialise()
        weights = {name: x.copy() for name, x in trainer.groups()["weights"].items()}
        own = [flat.vector for flat in (trainer.parameters, trainer.m, trainer.v, trainer.gradient)]
        trainer.load({"weights": weights}, step=0)
        before = {name: x.tobytes() for name, x in weights.items()}
        trainer.step(batch, lr=0.01)
    after = [flat.vector for flat in (trainer.parameters, trainer.m, trainer.v, trainer.gradient)]
    assert all(a is b for a, b in zip(own, after, strict=True))
    assert {name: x.tobytes() for name, x in weights.items()} == before


def test_what_groups_gives_load_takes() -> None:
    one, other = trained(steps=3), trained(steps=0, seed=5)
    other.load(one.groups(), step=3)
    assert bits(one) == bits(other)
    assert other.step_number == 3


@pytest.mark.parametrize("block", [1, 11 * 7, 1 << 20])
def test_the_nll_without_a_gradient_is_the_objectives(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refllm.train.LOGITS", block)
    p, batch = trained(dtype="float64").parameters.tree, tokens()
    ids, targets = batch[:, :-1], numpy.where(batch[:, 1:] == 3, -1, batch[:, 1:])
    nll = negative_log_likelihood(p, model=gpt, config=CONFIG, ids=ids, targets=targets, ignore=-1)
    exact, _ = causal_loss(p, model=gpt, ids=ids, targets=targets, ignore=-1, config=CONFIG, dropout_mask=None)
    assert nll == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("shards", [1, 2])
def test_an_evaluation_is_the_sum_over_its_windows(shards: int) -> None:
    p, batch = trained(dtype="float64").parameters.tree, tokens(6)
    pieces = [(batch[i : i + 2, :-1], batch[i : i + 2, 1:]) for i in (0, 2, 4)]
    with Workers(shards) as workers:
        total = evaluate(p, pieces, model=gpt, config=CONFIG, device="cpu", workers=workers)
        whole = evaluate(p, [(batch[:, :-1], batch[:, 1:])], model=gpt, config=CONFIG, device="cpu", workers=workers)
    assert total == pytest.approx(whole, rel=1e-12)


def test_evaluating_uses_no_dropout() -> None:
    p, batch = flatten(gpt.shapes(CONFIG), trained().parameters.tree).tree, tokens(2)
    with Workers(1) as workers:
        one, other = (
            evaluate(p, [(batch[:, :-1], batch[:, 1:])], model=gpt, config=config, device="cpu", workers=workers)
            for config in (CONFIG, tiny.config(vocabulary=11, dropout=0.5))
        )
    assert one == other


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch", 0), ("shards", 0), ("lr", 0.0), ("lr", math.nan), ("lr", math.inf), ("warmup", -0.1), ("warmup", 1.1),
        ("warmup", math.nan), ("floor", 2.0), ("beta1", 1.0), ("beta2", -0.1), ("beta2", math.nan), ("eps", 0.0),
        ("eps", math.nan), ("decay", -1.0), ("decay", math.nan), ("decay", math.inf), ("seed", -1), ("clip", 0.0),
        ("clip", math.nan),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=name):
        tiny.settings(**{name: value})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_eps_that_is_too_small_for_the_dtype_is_refused_by_name(dtype: str) -> None:
    least = LEAST_EPS[dtype]
    assert tiny.settings(eps=least, dtype=dtype).eps == least
    with pytest.raises(UserError, match=f"eps .* is too small for {dtype}: .* give {least:g} or more"):
        tiny.settings(eps=least / 2, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta2", [0.9, 0.99, 0.999])
def test_at_the_least_eps_no_gradient_however_small_takes_a_longer_step_than_the_rate(dtype: str, beta2: float) -> None:
    """With a millionth of it some do: the bound is one."""

    def longest(eps: float) -> float:
        least = float(numpy.finfo(dtype).smallest_subnormal)
        g = numpy.geomspace(least, 1, 4000).astype(dtype)
        zero = numpy.zeros_like(g)
        p, _, _ = adamw(zero, g, zero, zero, step=1, lr=1.0, beta1=0.9, beta2=beta2, eps=eps, decay=0.0)
        return float(numpy.abs(p).max())

    assert longest(LEAST_EPS[dtype]) <= 1.001
    assert longest(LEAST_EPS[dtype] / 1e6) > 1.1


def test_settings_survive_json() -> None:
    assert Settings(**tiny.settings(clip=math.inf).as_dict()) == tiny.settings(clip=math.inf)
