"""The border behind which the property tests of the operations examine a device: pytest --device=double."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.backend import on_device
from refllm.ops.softmax import softmax
from spec_tests import subject as subjects
from spec_tests.devices import DOUBLE

ROOT = Path(__file__).resolve().parents[2]


def test_inside_the_border_arrays_are_on_the_device_and_outside_on_the_host() -> None:
    seen = []

    def toy(x: Any, *, dropout_mask: Any, rate: float) -> Any:
        seen.extend([on_device(x), on_device(dropout_mask), rate])

        def back(dy: Any, dz: Any) -> Any:
            seen.append(on_device(dy))
            return dy * 2 + dz * dropout_mask

        return (x * 2, x * dropout_mask), back

    run = subjects._behind_a_border(toy, DOUBLE)
    (y, z), back = run(numpy.ones(2), dropout_mask=numpy.array([True, False]), rate=0.5)
    dx = back(numpy.ones(2), numpy.ones(2))
    assert seen == [True, True, 0.5, True]
    assert all(type(result) is numpy.ndarray for result in (y, z, dx))
    assert (y.tolist(), z.tolist(), dx.tolist()) == ([2, 2], [1, 0], [3, 2])


def test_what_is_written_into_an_argument_over_there_shows_here() -> None:
    def in_value(x: Any) -> Any:
        x += 1
        return x * 2, lambda dy: dy * 2

    def in_back(x: Any) -> Any:
        def back(dy: Any) -> Any:
            dy += 1
            x[...] = 7
            return dy * 2

        return x * 2, back

    x, dy = numpy.zeros(2), numpy.zeros(2)
    subjects._behind_a_border(in_value, DOUBLE)(x)
    assert x.tolist() == [1, 1]
    subjects._behind_a_border(in_back, DOUBLE)(x)[1](dy)
    assert (x.tolist(), dy.tolist()) == ([7, 7], [1, 1])
    x.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        subjects._behind_a_border(in_value, DOUBLE)(x)


def test_the_device_is_a_subject_with_every_operation() -> None:
    device, host = subjects.on_device(DOUBLE), subjects.refllm()
    assert device.functions.keys() == host.functions.keys()
    x = numpy.array([1.0, 2, 3])
    assert device.operation("softmax")(x)[0].tobytes() == softmax(x)[0].tobytes()


def _pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.every
def test_the_tests_of_the_operations_run_on_the_double() -> None:
    done = _pytest("--device=double", "spec_tests/ops/test_embedding.py")
    assert done.returncode == 0, done.stdout
    assert "a promise for NumPy arrays alone" in done.stdout
    assert " passed, 2 skipped" in done.stdout


@pytest.mark.every
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--device=cuda"], "ERROR: --device cuda needs CuPy, which is not installed"),
        (["--device=double", "--adapter=mine.py"], "ERROR: --adapter takes and returns NumPy arrays"),
    ],
    ids=["no CuPy", "an adapter"],
)
def test_a_device_that_cannot_be_tested_is_refused(tmp_path: Path, arguments: list[str], line: str) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError")
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", path, "--collect-only", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.startswith(line)
    assert done.stderr.strip().count("\n") == 0
