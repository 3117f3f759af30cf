"""Tests of the tests: what must not happen on a device is planted, and found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm import cli
from refllm.backend import known, namespace, to_device, to_host
from refllm.commands.progress import Display
from refllm.models import gpt, output
from refllm.train import Trainer
from spec_tests import tiny
from spec_tests.device.watch import assert_little_is_transferred, steps_watched
from spec_tests.devices import DOUBLE, assert_agrees

X = numpy.linspace(-2, 2, 12, dtype="float32").reshape(3, 4)
CONSTANT = numpy.array([1, 2, 3, 4], dtype="float32")


def steered_by_a_value(x: Any) -> Any:
    return x * 2 if x.max() > 1 else x


def steered_through_known(x: Any) -> Any:
    return x * 2 if known(x.max() > 1) else x


def by_way_of_the_host(x: Any) -> Any:
    return namespace(x).asarray(to_host(x) * 2)


def with_a_constant_from_the_host(x: Any) -> Any:
    return x * to_device(CONSTANT, "cuda" if namespace(x) is not numpy else "cpu")


PLANTED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "np.asarray of a device array": (numpy.asarray, "Implicit conversion"),
    "a function of NumPy": (numpy.exp, "does not support ufuncs"),
    "an unsupported keyword": (lambda x: x.sum(initial=0), "unexpected keyword argument 'initial'"),
    "an unsupported function": (lambda x: namespace(x).vecdot(x, x), "no attribute 'vecdot'"),
    "a NumPy constant mixed in": (lambda x: x * CONSTANT, "Unsupported type"),
    "a NumPy index": (lambda x: x[numpy.array([0, 2])], "an index must be on the device"),
    "float()": (lambda x: x * float(x[0, 0]), "inside the computation: .*device_to_host=1"),
    "an if on a value": (steered_by_a_value, "inside the computation: .*synchronisations=1"),
    "a mask": (lambda x: x[x > 0], "inside the computation: .*synchronisations=1"),
    "a detour": (by_way_of_the_host, "inside the computation: .*device_to_host=1"),
    "a constant sent over": (with_a_constant_from_the_host, "inside the computation: .*host_to_device=1"),
    "a result left on the host": (lambda x: to_host(x) * 1, "inside the computation: .*device_to_host=1"),
    "a host array for a result": (lambda x: CONSTANT * 2, "a result lives on the host"),
    "other numbers where `known` is false": (steered_through_known, "has other bits"),
    "another dtype": (lambda x: x if namespace(x) is numpy else x.astype("float64"), "float64 instead of"),
}


@pytest.mark.parametrize(("compute", "message"), PLANTED.values(), ids=PLANTED)
def test_a_planted_defect_is_found(compute: Callable[[Any], Any], message: str) -> None:
    with pytest.raises((AssertionError, TypeError, AttributeError), match=message):
        assert_agrees(DOUBLE, compute, X)


def test_what_is_right_is_not_found() -> None:
    assert_agrees(DOUBLE, lambda x: {"y": [x * 2, namespace(x).exp(x).sum(axis=-1)]}, X)


def _reads_the_loss(trainer: Trainer, loss: Any) -> None:
    float(loss)


def _reads_the_norm(trainer: Trainer, loss: Any) -> None:
    if trainer.norm > 1e9:
        raise AssertionError


def _waits(trainer: Trainer, loss: Any) -> None:
    namespace(loss).cuda.Device().synchronize()


def _sends_over(trainer: Trainer, loss: Any) -> None:
    to_device(CONSTANT, "cuda")


@pytest.mark.parametrize("planted", [_reads_the_loss, _reads_the_norm, _waits, _sends_over])
def test_a_transfer_or_a_wait_in_every_step_is_found(planted: Callable[[Trainer, Any], None], tmp_path: Path) -> None:
    with DOUBLE.present(), steps_watched() as steps:
        run = tiny.begin(tmp_path, "run", steps=6, reports=2, device="cuda")
        with run.trainer.workers:
            run.train(lambda: False, lambda loss: planted(run.trainer, loss), lambda line: None)
    with pytest.raises(AssertionError, match=r"step 1: .* instead of"):
        assert_little_is_transferred(steps, count=6, to_device=1)


@pytest.mark.every
def test_a_display_that_reads_the_loss_now_and_then_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_step(self: Display, loss: Any) -> None:
        if self.prepared.trainer.step_number == 3:
            json.dumps(float(loss))

    monkeypatch.setattr(Display, "on_step", on_step)
    sizes = ["--steps", "4", "--reports", "1", "--batch", "2", "--context", "8", "--layers", "1", "--heads", "1"]
    with DOUBLE.present(), steps_watched() as steps:
        out = ["--out", str(tmp_path / "run"), "--width", "4", "--device", "cuda", "--dropout", "0"]
        assert cli.main(["train", "--data", str(tiny.data(tmp_path)), *sizes, *out]) == 0
    with pytest.raises(AssertionError, match=r"step 3: \(1, 1, 1\)"):
        assert_little_is_transferred(steps, count=4, to_device=1)


def test_a_defect_planted_in_an_operation_is_found_in_the_model_that_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from refllm.ops.linear import matmul

    def reads(x: Any, W: Any) -> Any:
        float(W[0, 0])
        return matmul(x, W)

    monkeypatch.setattr(output, "matmul", reads)
    config = tiny.config(vocabulary=5)
    p = gpt.initial(config, numpy.random.default_rng(0))
    with pytest.raises(AssertionError, match=r"inside the computation: .*device_to_host=1"):
        assert_agrees(
            DOUBLE,
            lambda p, ids: gpt.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)[0],
            p,
            numpy.array([[1, 2, 3]]),
        )
