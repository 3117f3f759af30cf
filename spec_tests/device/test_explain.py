"""Explanations on a device: the same numbers as on the host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refllm.cli import main
from refllm.explain.attention import attention_maps
from refllm.models import llama
from refllm.parameters import map_leaves
from spec_tests import tiny
from spec_tests.commands.conftest import MODEL, leave_the_allocator_alone
from spec_tests.commands.test_classify import SMALL, table
from spec_tests.devices import DOUBLE, Device, assert_agrees, every_device, replaced
from spec_tests.gradients import random_tree
from spec_tests.tasks.test_classify import ROWS

CONFIG = llama.Config(vocabulary=9, context=6, layers=1, heads=2, kv_heads=1, width=8, hidden=8, positions="alibi")


@pytest.fixture
def _double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("CUPY_TF32", "unsaid")
    monkeypatch.chdir(tmp_path)
    leave_the_allocator_alone(monkeypatch)
    with DOUBLE.present(), replaced():
        yield


def explained(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capfd.readouterr()
    assert main(["explain", *arguments, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


@pytest.mark.usefixtures("_double")
def test_a_classifier_is_explained_the_same_on_both_devices(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    how = ["--steps", "3", "--reports", "1", "--out", "run", *SMALL]
    assert main(["classify", "fit", table(tmp_path / "data.csv", ROWS), *how]) == 0
    for more in ([], ["--method", "gradient", "--baseline", "zeros", "--of", "logit"]):
        asked = ["run", "pear plum and fig", *more]
        assert explained(capfd, *asked) == explained(capfd, *asked, "--device", "cuda")


@pytest.mark.usefixtures("_double")
def test_a_language_model_is_explained_the_same_on_both_devices(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    how = ["--data", str(tiny.data(tmp_path)), "--steps", "2", "--reports", "1", "--out", "run", *MODEL]
    assert main(["train", *how]) == 0
    assert explained(capfd, "run", "2 times 3") == explained(capfd, "run", "2 times 3", "--device", "cuda")


@every_device
def test_the_weights_are_formed_on_the_device_and_nothing_is_waited_for(device: Device) -> None:
    import numpy

    ids = numpy.arange(5)[None]
    p = map_leaves(lambda x: x.astype("float32"), random_tree(llama.shapes(CONFIG), seed=1))

    def compute(arrays: Any) -> Any:
        tree, rows = arrays
        return attention_maps(lambda: llama.forward(tree, ids=rows, config=CONFIG, dropout_mask=None, cache=None))

    assert_agrees(device, compute, (p, ids))
