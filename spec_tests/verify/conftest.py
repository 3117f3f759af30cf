"""The golden files, loaded once, a small golden folder to damage, and a report with something of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.verify import corpus, diagnosis, reference, runner
from refllm.verify.adapter import Functions
from refllm.verify.report import Report
from spec_tests.verify.folder import Folder


@pytest.fixture(scope="session")
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "golden")


@pytest.fixture(scope="session")
def report(golden: corpus.Corpus) -> Report:
    """attention without the scale, relu without a pullback, layer_norm right, matmul that raises, all else absent."""
    right = reference.functions()

    def attention(q, k, v, **how):  # type: ignore[no-untyped-def]
        scale = numpy.sqrt(q.shape[-1])
        y, back = right["attention"](q * scale, k, v, **how)

        def scaled_back(dy):  # type: ignore[no-untyped-def]
            dq, dk, dv = back(dy)
            return dq * scale, dk, dv

        return y, scaled_back

    def matmul(*_: object) -> None:
        raise RuntimeError("<no & luck>\x00")

    functions: dict[str, Any] = {"attention": attention, "layer_norm": right["layer_norm"], "matmul": matmul}
    mine = Functions("mine.py", {**functions, "relu": lambda x: numpy.maximum(x, 0)}, {})
    results = list(diagnosis.diagnosed(runner.run(mine, golden.cases.values(), "float64", golden.C), "float64"))
    return Report("mine.py", "some/mine.py", "float64", golden.C, golden.spec_version, results)
