"""Laws of magnitude pruning."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.finetune.pruning import SCOPES, magnitude_masks, pruned, pruned_tuning, sparsity_of
from refllm.parameters import named_leaves
from refllm.train import Trainer
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.finetune.models import FAMILIES, moved, same, start
from spec_tests.gradients import random_tree

every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
TREE = random_tree({"token": (6, 4), "layers": [{"W": (4, 5), "b": (5,)}], "norm": {"g": (4,)}}, seed=0)


@given(st.floats(0, 0.999), st.sampled_from(SCOPES))
def test_what_is_pruned_is_the_share_and_no_larger_than_what_is_kept(sparsity: float, scope: str) -> None:
    masks = magnitude_masks(TREE, sparsity=sparsity, scope=scope)
    leaves = dict(named_leaves(TREE))
    groups = [[path] for path in masks] if scope == "tensor" else [list(masks)]
    for group in groups:
        kept = numpy.concatenate([masks[path].reshape(-1) for path in group])
        sizes = numpy.concatenate([abs(leaves[path]).reshape(-1) for path in group])
        assert (~kept).sum() == int(sparsity * len(sizes))
        assert sizes[~kept].max(initial=0.0) <= sizes[kept].min()


def test_only_matrices_are_pruned() -> None:
    masks = magnitude_masks(TREE, sparsity=0.9, scope="global")
    assert list(masks) == ["token", "layers.0.W"]
    small = pruned(TREE, masks)
    assert same(small["norm"], TREE["norm"])
    assert same(small["layers"][0]["b"], TREE["layers"][0]["b"])


def test_equal_weights_are_pruned_to_the_share_too() -> None:
    masks = magnitude_masks({"W": numpy.ones((4, 4))}, sparsity=0.5, scope="tensor")
    assert masks["W"].sum() == 8


def test_the_kept_weights_stay_as_they_are_and_pruning_again_changes_nothing() -> None:
    masks = magnitude_masks(TREE, sparsity=0.5, scope="tensor")
    small = pruned(TREE, masks)
    for path, mask in masks.items():
        leaf, before = dict(named_leaves(small))[path], dict(named_leaves(TREE))[path]
        assert numpy.array_equal(leaf, numpy.where(mask, before, 0))
    assert same(pruned(small, magnitude_masks(small, sparsity=0.5, scope="tensor")), small)
    assert sparsity_of(small) == 0.5


@every_family
def test_pruned_weights_stay_zero_while_the_others_are_trained(family: Any) -> None:
    p = random_tree(family.model.shapes(family.config), seed=0)
    masks = magnitude_masks(p, sparsity=0.5, scope="tensor")
    tuning = pruned_tuning(model=family.model, config=family.config, parameters=p, masks=masks)
    with Workers(1) as workers:
        trainer = Trainer(
            model=tuning.model, config=family.config, objective=tuning.wrap(family.objective),
            settings=tiny.settings(dtype="float64"), workers=workers,
        )  # fmt: skip
        trainer.initialise()
        for _ in range(3):
            trainer.step(family.batch, lr=0.01)
    before, after = dict(named_leaves(p)), dict(named_leaves(tuning.full(trainer.parameters.tree)))
    for path, mask in masks.items():
        assert (after[path][~mask] == 0).all()
        assert (after[path][mask] != before[path][mask]).any()


def test_the_gradient_is_the_models_at_the_pruned_weights_and_zero_where_pruned() -> None:
    family = FAMILIES["gpt"]
    p = random_tree(family.model.shapes(family.config), seed=0)
    masks = magnitude_masks(p, sparsity=0.5, scope="global")
    tuning = pruned_tuning(model=family.model, config=family.config, parameters=p, masks=masks)
    assert same(tuning.full(start(tuning)), pruned(p, masks))
    trained = moved(tuning)
    how: dict[str, Any] = {"totals": 3, "dropout_mask": None}
    y, back = tuning.wrap(family.objective).loss(trained, family.batch, **how)
    z, back_model = family.objective.loss(tuning.full(trained), family.batch, **how)
    assert y == z
    assert same(tuning.full(trained), pruned(tuning.full(trained), masks))
    assert any(trained[path][~mask].any() for path, mask in masks.items())
    dense = dict(named_leaves(back_model(numpy.ones(()))))
    assert same(back(numpy.ones(())), {path: leaf * masks.get(path, True) for path, leaf in dense.items()})
    assert all(dense[path][~mask].any() for path, mask in masks.items())


def test_what_cannot_be_pruned_is_refused() -> None:
    for sparsity in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="sparsity must be at least 0 and below 1"):
            magnitude_masks(TREE, sparsity=sparsity, scope="tensor")
    with pytest.raises(UserError, match="scope must be one of tensor, global; got 'row'"):
        magnitude_masks(TREE, sparsity=0.5, scope="row")
