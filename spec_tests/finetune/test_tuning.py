"""Laws of every tuning: what is trained starts where the trained model stands, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.finetune import TUNES, Tuning, by_name
from refllm.models import bert, gpt, nnlm
from refllm.parameters import FlatTree, Tree, map_leaves, named_leaves
from refllm.train import Trainer
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.finetune.models import FAMILIES, Family, moved, same, start
from spec_tests.gradients import assert_gradients_agree

OPTIONS: dict[str, Any] = {"all": {}, "upper": {"layers": 1}, "low-rank": {"rank": 1, "alpha": 3.0}}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
every_tune = pytest.mark.parametrize("tune", TUNES)


def tuned(tune: str, family: Family, parameters: Tree | None = None, **more: Any) -> Tuning:
    given = family.parameters if parameters is None else parameters
    return by_name(tune, model=family.model, config=family.config, parameters=given, **{**OPTIONS[tune], **more})


@pytest.mark.one_in(12)
@pytest.mark.parametrize(
    ("tune", "name"), [("all", "gpt"), *((tune, name) for tune in ("upper", "low-rank") for name in FAMILIES)]
)
def test_every_trained_leafs_gradient_agrees_with_differences_through_the_model(tune: str, name: str) -> None:
    family = FAMILIES[name]
    tuning = tuned(tune, family)
    objective = tuning.wrap(family.objective)
    totals = objective.totals(family.batch)
    assert_gradients_agree(lambda p: objective.loss(p, family.batch, totals=totals, dropout_mask=None), moved(tuning))


@every_family
@every_tune
def test_the_start_is_the_trained_model_to_the_bit(tune: str, family: Family) -> None:
    """A new head apart, which the trained model does not have."""
    tuning = tuned(tune, family)
    full = tuning.full(start(tuning))
    assert same({name: full[name] for name in family.parameters}, family.parameters)
    assert [path for path, _ in named_leaves(full)] == [
        path for path, _ in named_leaves(family.model.shapes(family.config))
    ]


@every_family
@every_tune
def test_a_training_changes_every_trained_leaf_and_no_frozen_one(tune: str, family: Family) -> None:
    tuning = tuned(tune, family)
    before = {path: leaf.copy() for path, leaf in tuning.frozen.items()}
    settings = tiny.settings(dtype="float64", decay=0.0)
    with Workers(1) as workers:
        trainer = Trainer(
            model=tuning.model, config=family.config, objective=tuning.wrap(family.objective), settings=settings,
            workers=workers,
        )  # fmt: skip
        trainer.initialise()
        first = {path: leaf.copy() for path, leaf in trainer.parameters.tree.items()}
        for _ in range(2):
            trainer.step(family.batch, lr=0.01)
    full = dict(named_leaves(tuning.full(trainer.parameters.tree)))
    adapted = {path[:-2] for path in tuning.model.leaves if path.endswith((".A", ".B"))}
    for path, leaf in before.items():
        assert numpy.array_equal(tuning.frozen[path], leaf), path
        assert numpy.array_equal(full[path], leaf) != (path in adapted), path
    for path, leaf in first.items():
        assert not numpy.array_equal(trainer.parameters.tree[path], leaf), path


@every_tune
def test_the_loss_falls(tune: str) -> None:
    family = FAMILIES["bert"]
    tuning = tuned(tune, family)
    with Workers(1) as workers:
        trainer = Trainer(
            model=tuning.model, config=family.config, objective=tuning.wrap(family.objective),
            settings=tiny.settings(), workers=workers,
        )  # fmt: skip
        trainer.initialise()
        losses = [float(trainer.step(family.batch, lr=0.03)) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


@every_family
@every_tune
def test_the_frozen_leaves_and_the_options_make_the_same_tuning_again(tune: str, family: Family) -> None:
    """What a run keeps, and so needs no other run to be resumed."""
    tuning = tuned(tune, family)
    again = by_name(**tuning.options, model=family.model, config=family.config, parameters=tuning.frozen)
    assert again.model.shapes(None) == tuning.model.shapes(None)
    trained = moved(tuning)
    assert same(again.full(trained), tuning.full(trained))
    assert again.options == tuning.options


@every_family
@every_tune
def test_the_count_is_that_of_the_trained_leaves_and_all_is_the_model(tune: str, family: Family) -> None:
    tuning = tuned(tune, family)
    whole = sum(leaf.size for _, leaf in named_leaves(tuning.full(start(tuning))))
    assert tuning.count == sum(leaf.size for leaf in start(tuning).values())
    assert tuning.share == tuning.count / whole
    assert (tuning.share == 1) == (tune == "all")


@every_family
def test_a_model_that_is_trained_whole_is_told_in_layers_with_the_same_numbers(family: Family) -> None:
    """Where parameters are cut over ranks, a Trainer gets the tree: names, values, gradients are as of the leaves."""
    tuning = tuned("all", family)
    layered = tuning.model.in_layers
    assert layered.shapes(None) == family.model.shapes(family.config)
    whole = layered.initial(None, numpy.random.default_rng(1))
    leaves = tuning.model.initial(None, numpy.random.default_rng(1))
    assert same(dict(named_leaves(whole)), leaves)
    assert list(dict(named_leaves(whole))) == list(leaves)
    full, back = tuning.expand(whole)
    assert full is whole
    assert back(whole) is whole
    for tune in ("upper", "low-rank"):
        part = tuned(tune, family).model
        assert part.in_layers is part


@every_tune
def test_a_new_head_is_trained_in_full_and_starts_from_the_seed(tune: str) -> None:
    family = FAMILIES["bert"]
    tuning = tuned(tune, family)
    fresh = bert.initial(family.config, numpy.random.default_rng(1))
    assert numpy.array_equal(start(tuning)["classes.W"], fresh["classes"]["W"])
    assert not any(path.startswith("classes") for path in tuning.frozen)


@every_tune
def test_the_head_of_another_task_is_left_aside(tune: str) -> None:
    family = FAMILIES["bert"]
    with_others = {**family.parameters, "pair": {"W": numpy.ones((4, 2)), "b": numpy.ones(2)}}
    tuning = tuned(tune, family, with_others)
    assert "pair" not in tuning.full(start(tuning))
    assert not any("pair" in path for path in [*tuning.frozen, *tuning.model.leaves])


def test_a_model_without_a_past_can_be_trained_whole() -> None:
    family = FAMILIES["gpt"]
    tuning = by_name("all", model=family.model, config=family.config, parameters=None)
    fresh = gpt.initial(family.config, numpy.random.default_rng(1))
    assert same(tuning.full(start(tuning)), fresh)


@every_tune
def test_the_full_tree_has_the_precision_of_the_trained_leaves(tune: str) -> None:
    tuning = tuned(tune, FAMILIES["bert"])
    trained = map_leaves(lambda leaf: leaf.astype("float32"), start(tuning))
    assert {leaf.dtype.name for _, leaf in named_leaves(tuning.full(trained))} == {"float32"}


def test_the_upper_layers_of_each_family() -> None:
    """bert and gpt: the last layer and what follows; an encoder-decoder: of the decoder."""
    trained = {name: {path.split(".")[0] for path in tuned("upper", f).model.leaves} for name, f in FAMILIES.items()}
    assert trained["bert"] == {"layers", "pooler", "classes"}
    assert trained["gpt"] == {"layers", "norm"}
    assert trained["llama"] >= {"layers", "norm"}
    assert trained["encoder_decoder"] == {"decoder"}
    for name, stack in (("bert", "layers."), ("gpt", "layers."), ("encoder_decoder", "decoder.layers.")):
        leaves = tuned("upper", FAMILIES[name]).model.leaves
        assert {path.split(stack)[1][0] for path in leaves if path.startswith(stack)} == {"1"}
        both = tuned("upper", FAMILIES[name], layers=2).model.leaves
        assert {path.split(stack)[1][0] for path in both if path.startswith(stack)} == {"0", "1"}


@every_family
def test_a_layer_is_trained_or_frozen_whole(family: Family) -> None:
    """Cut between two layers: all that stands before is frozen, all that stands after is trained."""
    paths = [path for path, _ in named_leaves(family.model.shapes(family.config))]
    cut = next(i for i, path in enumerate(paths) if path.startswith(("layers.1.", "decoder.layers.1.")))
    tuning = tuned("upper", family)
    assert list(tuning.frozen) == paths[:cut]
    assert list(tuning.model.leaves) == paths[cut:]


@pytest.mark.parametrize("tune", ["upper", "low-rank"])
def test_what_the_trained_model_lacks_is_trained_wherever_it_stands(tune: str) -> None:
    family = FAMILIES["bert"]
    known = {name: tree for name, tree in family.parameters.items() if name != "segment"}
    tuning = tuned(tune, family, known)
    assert "segment" in tuning.model.leaves
    assert tuning.full(start(tuning))["segment"].shape == (2, 4)


def test_no_layer_leaves_the_head_to_be_trained() -> None:
    assert {path.split(".")[0] for path in tuned("upper", FAMILIES["bert"], layers=0).model.leaves} == {
        "pooler", "classes",
    }  # fmt: skip


@pytest.mark.parametrize("tune", ["upper", "low-rank"])
@pytest.mark.parametrize("nothing", [None, {}])
def test_a_part_of_no_model_is_refused(tune: str, nothing: Any) -> None:
    family = FAMILIES["gpt"]
    with pytest.raises(UserError, match="needs a trained model to start from; give one, or tune all"):
        by_name(tune, model=family.model, config=family.config, parameters=nothing, **OPTIONS[tune])


def test_what_cannot_be_tuned_is_refused_in_one_line() -> None:
    family = FAMILIES["gpt"]
    other = {**family.parameters, "token": numpy.zeros((7, 4))}
    with pytest.raises(UserError, match=r"does not fit: token is \(7, 4\), should be \(5, 4\)"):
        tuned("all", family, other)
    with pytest.raises(UserError, match="no tuning 'half'; choose one of all, upper, low-rank"):
        by_name("half", model=gpt, config=family.config, parameters=family.parameters)
    with pytest.raises(UserError, match="layers must be between 0 and the model's 2, got 3"):
        tuned("upper", family, layers=3)
    config = nnlm.Config(vocabulary=5, context=4, order=3, width=2, hidden=2)
    flat = nnlm.initial(config, numpy.random.default_rng(0))
    with pytest.raises(UserError, match="no upper layers to train alone"):
        by_name("upper", model=nnlm, config=config, parameters=flat, layers=1)
    post = gpt.Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2, norm="post", tied=True)
    with pytest.raises(UserError, match="nothing is left to train"):
        by_name("upper", model=gpt, config=post, parameters=gpt.initial(post, numpy.random.default_rng(0)), layers=0)


def test_a_flat_tree_holds_the_trained_leaves() -> None:
    """The trainer's vectors are as long as what is trained."""
    tuning = tuned("low-rank", FAMILIES["gpt"])
    assert FlatTree(tuning.model.shapes(None), numpy.zeros(tuning.count)).tree.keys() == start(tuning).keys()
