"""Training on a device: the host's numbers, a seed means the same, and nothing is read between two reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.models import gpt
from refllm.objectives.causal import Causal
from refllm.parameters import named_leaves
from refllm.run import Run
from refllm.train import Trainer, evaluate
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.device.watch import assert_little_is_transferred, steps_watched
from spec_tests.devices import DOUBLE, Device, assert_same, every_device, replaced

V = 11


def _tokens(B: int, seed: int) -> Any:
    return numpy.random.default_rng(seed).integers(0, V, (B, 17))


def _trained(*, dropout: float = 0.0, norm: str = "pre", activation: str = "gelu_tanh", **changes: Any) -> Any:
    """Losses, norms, parameters and moments of four steps, on the host at last."""
    settings = tiny.settings(**changes)
    config = tiny.config(vocabulary=V, dropout=dropout, norm=norm, activation=activation)
    with Workers(settings.shards) as workers:
        trainer = Trainer(model=gpt, config=config, objective=Causal(gpt, config), settings=settings, workers=workers)
        trainer.initialise()
        seen = []
        for step in range(4):
            seen += [trainer.step(_tokens(5, step), lr=0.01), trainer.norm]
        return [numpy.asarray(_host(x)) for x in [*seen, trainer.parameters.vector, trainer.m.vector, trainer.v.vector]]


def _host(x: Any) -> Any:
    return x.get() if hasattr(x, "get") else x


@pytest.mark.one_in(8)
@every_device
@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("norm", "activation"), [("pre", "gelu_tanh"), ("post", "gelu_erf"), ("pre", "relu")])
def test_a_training_on_a_device_is_the_hosts(
    device: Device, shards: int, dropout: float, norm: str, activation: str
) -> None:
    how: dict[str, Any] = {"shards": shards, "dropout": dropout, "norm": norm, "activation": activation}
    how["dtype"] = "float32" if device.exact else "float64"
    with replaced():
        expected = _trained(**how)
    with device.present():
        assert_same(device, expected, _trained(**how, device="cuda"))


@every_device
def test_an_evaluation_on_a_device_is_the_hosts(device: Device) -> None:
    windows = [(_tokens(3, seed), _tokens(3, seed + 1)) for seed in range(3)]
    windows[0][1][0, :5] = -1
    found = []
    config = tiny.config(vocabulary=V, context=17)
    for place in ("cpu", "cuda"):
        with replaced(), device.present(), Workers(2) as workers:
            trainer = Trainer(
                model=gpt,
                config=config,
                objective=Causal(gpt, config),
                settings=tiny.settings(device=place),
                workers=workers,
            )
            trainer.initialise()
            p = trainer.parameters.tree
            found.append(evaluate(p, windows, model=gpt, config=config, device=place, workers=workers))
    assert found[1] == (found[0] if device.exact else pytest.approx(found[0], rel=1e-5))


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("dropout", "to_device"), [(0.0, 1), (0.3, 2)])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_step_takes_its_tokens_and_draws_to_the_device_and_brings_nothing_back(
    tmp_path: Path, dropout: float, to_device: int, shards: int
) -> None:
    with DOUBLE.present(), steps_watched() as steps:
        tiny.train(tiny.begin(tmp_path, "run", steps=12, reports=2, dropout=dropout, shards=shards, device="cuda"))
    assert_little_is_transferred(steps, count=12, to_device=1 + (to_device - 1) * shards)


def test_all_losses_of_a_report_are_read_at_once(tmp_path: Path) -> None:
    """So what a report costs does not grow with the steps before it."""
    costs = []
    for steps in (4, 12):
        with DOUBLE.present():
            run = tiny.begin(tmp_path, f"{steps}", steps=steps, reports=1, device="cuda")
            with DOUBLE.counting() as counts:
                tiny.train(run)
        costs.append((counts.device_to_host, counts.host_to_device - steps))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_run_on_a_device_is_the_hosts_and_goes_on_from_its_checkpoint(tmp_path: Path, dropout: float) -> None:
    with replaced():
        tiny.train(tiny.begin(tmp_path, "host", dropout=dropout))
    with DOUBLE.present():
        whole = tiny.train(tiny.begin(tmp_path, "whole", dropout=dropout, device="cuda"))
        tiny.train(tiny.begin(tmp_path, "parts", dropout=dropout, device="cuda"), stop_after=7)
        parts = tiny.train(Run.resume(tmp_path / "parts", Workers))
        assert _bits(parts) == _bits(whole)
    assert tiny.metrics(tmp_path / "parts") == tiny.metrics(tmp_path / "whole") == tiny.metrics(tmp_path / "host")
    saved = [_arrays(tmp_path / name) for name in ("parts", "whole", "host")]
    assert len(saved[0]) == 3
    assert saved[0] == saved[1] == saved[2]


def _bits(run: Run) -> dict[str, bytes]:
    return {
        f"{group} {name}": x.get().tobytes()
        for group, arrays in run.trainer.groups().items()
        for name, x in named_leaves(arrays)
    }


def _arrays(directory: Path) -> dict[str, bytes]:
    return {name: data for name, data in tiny.contents(directory).items() if name.endswith(".safetensors")}
