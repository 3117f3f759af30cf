"""What is tuned, pruned, distilled and stored on a device is what the host makes of it."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.backend import to_device, to_host
from refllm.finetune import TUNES, by_name
from refllm.finetune.distillation import Teacher, distilled
from refllm.finetune.pruning import magnitude_masks, pruned_tuning
from refllm.finetune.stored import FORMS, packed, unpacked
from refllm.parameters import Tree, map_leaves, named_leaves
from refllm.train import Trainer
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.devices import Device, assert_same, every_device, replaced
from spec_tests.finetune.models import FAMILIES
from spec_tests.gradients import random_tree

OPTIONS: dict[str, Any] = {"all": {}, "upper": {"layers": 1}, "low-rank": {"rank": 1}}
FAMILY = FAMILIES["gpt"]
SINGLE = map_leaves(lambda x: x.astype("float32"), random_tree(FAMILY.model.shapes(FAMILY.config), seed=0))


def _trained(how: str, device: str) -> list[Any]:
    """All parameters after three steps, on the host."""
    p: Tree = map_leaves(lambda x: to_device(x, device), SINGLE)
    objective: Any = FAMILY.objective
    if how == "distilled":
        objective = distilled(objective, Teacher(FAMILY.model, FAMILY.config, p))
    if how == "pruned":
        masks = magnitude_masks(p, sparsity=0.5, scope="global")
        tuning = pruned_tuning(model=FAMILY.model, config=FAMILY.config, parameters=p, masks=masks)
    else:
        tune = how if how in TUNES else "all"
        tuning = by_name(tune, model=FAMILY.model, config=FAMILY.config, parameters=p, **OPTIONS[tune])
    with Workers(1) as workers:
        trainer = Trainer(
            model=tuning.model, config=FAMILY.config, objective=tuning.wrap(objective),
            settings=tiny.settings(device=device), workers=workers,
        )  # fmt: skip
        trainer.initialise()
        for _ in range(3):
            trainer.step(FAMILY.batch, lr=0.01)
    return [to_host(leaf) for _, leaf in named_leaves(tuning.full(trainer.parameters.tree))]


@every_device
@pytest.mark.parametrize("how", [*TUNES, "pruned", "distilled"])
def test_a_tuning_on_a_device_is_the_hosts(device: Device, how: str) -> None:
    with replaced():
        expected = _trained(how, "cpu")
    with device.present():
        assert_same(device, expected, _trained(how, "cuda"))


@every_device
@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_a_devices_weights_are_those_of_the_hosts(device: Device, form: str) -> None:
    leaves = {path: numpy.where(abs(leaf) < 0.2, 0, leaf) for path, leaf in named_leaves(SINGLE)}
    expected = packed(leaves, form)
    with device.present():
        found = packed({path: to_device(leaf, "cuda") for path, leaf in leaves.items()}, form)
        again = unpacked(found, form)
        assert_same(device, list(expected.values()), [to_host(array) for array in found.values()])
        assert_same(device, list(unpacked(expected, form).values()), [to_host(leaf) for leaf in again.values()])
