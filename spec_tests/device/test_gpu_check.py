"""scripts/gpu_check, tried on the double: it finds what agrees and what does not, and writes its figures."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpu import check, gradients, sizes, timing, torch_side
from refllm.errors import UserError
from refllm.models import gpt
from refllm.ops import softmax
from spec_tests.devices import DOUBLE
from spec_tests.operations import operation_functions
from spec_tests.strict_cupy import absent, installed

TINY = sizes.Sizes(
    config=gpt.Config(vocabulary=9, context=8, layers=1, heads=2, width=8, hidden=8),
    batch=2, new_tokens=4, attention=(1, 2, 5, 4), examples=2, warmup=1, repeats=3,
)  # fmt: skip
SMALL = {"tiny": gpt.Config(vocabulary=9, context=8, layers=2, heads=2, width=8, hidden=8, activation="gelu_erf")}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_TF32", "unsaid")
    monkeypatch.setattr(gradients, "CONFIGURATIONS", SMALL)


def test_the_check_examines_every_operation_and_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    with DOUBLE.present():
        report = check.check(out, tests=False, sizes=TINY)
    assert json.loads(out.read_text()) == json.loads(json.dumps(report))
    assert report["agrees"]
    names = {function.__name__ for function in operation_functions()} | SMALL.keys()
    assert {(row["name"], row["dtype"]) for row in report["gradients"]} == {
        (name, dtype) for name in names for dtype in ("float32", "float64")
    }
    assert [row["task"] for row in report["timings"]] == ["training step", "generation", "attention"]
    assert all(0 < row["refllm_fastest_s"] <= row["refllm_median_s"] for row in report["timings"])
    assert max(row["error"] for row in report["gradients"]) > 0


@pytest.mark.every
def test_a_wrong_gradient_on_the_device_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = softmax.log_softmax

    def log_softmax(x: Any) -> Any:
        y, back = right(x)
        return y, lambda dy: back(dy) * (1 if type(x).__module__ == "numpy" else 1.01)

    functions = [f for f in operation_functions() if f is not right] + [log_softmax]
    log_softmax.__doc__ = right.__doc__
    monkeypatch.setattr(gradients, "operation_functions", lambda: functions)
    with DOUBLE.present():
        report = check.check(tmp_path / "figures.json", tests=False, sizes=TINY)
    assert not report["agrees"]
    assert {row["name"] for row in report["gradients"] if not row["agrees"]} == {"log_softmax"}


def test_a_gradient_that_is_no_number_does_not_agree() -> None:
    assert gradients._worse(1.0, float("nan"), 2.0) == float("inf")


def test_failing_tests_fail_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def call(command: list[str], **_: Any) -> int:
        asked.append(command)
        return len(asked) - 1  # the second suite fails

    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setattr(check, "USUAL", TINY)
    monkeypatch.setattr(gradients, "operation_functions", lambda: operation_functions()[:1])
    with DOUBLE.present():
        assert check.main(["--out", str(tmp_path / "a.json")]) == 1
        assert check.main(["--out", str(tmp_path / "b.json"), "--no-tests"]) == 0
    assert [command[4:] for command in asked] == [["-m", "gpu", "spec_tests"], ["--device=cuda", "spec_tests/ops"]]


def test_figures_are_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    out.write_text("mine")
    with DOUBLE.present(), pytest.raises(UserError, match="exists and will not be overwritten; give another --out"):
        check.check(out, tests=False, sizes=TINY)
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("missing", "said"), [(absent(), "CuPy, which is not installed"), (installed(device=False), "finds no usable GPU")]
)
def test_without_a_gpu_the_check_says_so(
    missing: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with missing:
        assert check.main(["--out", str(tmp_path / "figures.json")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gpu_check: ")
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_script_is_this_check(tmp_path: Path) -> None:
    script = Path(check.__file__).resolve().parents[1] / "gpu_check"
    (tmp_path / "cupy.py").write_text("raise ImportError")
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("gpu_check: --device cuda needs CuPy")


def test_the_clock_waits_before_and_after_and_leaves_out_what_warms_up() -> None:
    events: list[str] = []
    taken = timing.seconds(lambda: events.append("work"), lambda: events.append("wait"), warmup=2, repeats=3)
    assert events == ["wait", "work", "wait"] * 5
    assert len(taken) == 3


@pytest.mark.oracle
def test_both_sides_of_the_timings_do_the_same_work() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    torch, _ = torch_side.find("cpu")
    with DOUBLE.present():
        ours = {name: task(TINY) for name, task in timing.TASKS.items()}
        theirs = {name: task(torch, TINY, "cpu") for name, task in torch_side.TASKS.items()}
        for _ in range(3):
            assert float(ours["training step"]()) == pytest.approx(float(theirs["training step"]()), rel=1e-4)
        assert ours["generation"]() == theirs["generation"]()
        for a, b in zip(ours["attention"](), theirs["attention"](), strict=True):
            assert a.get() == pytest.approx(b.numpy(), abs=1e-4)
