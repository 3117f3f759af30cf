"""How to see a failure again: what the report says can be run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.verify import adapter, corpus, runner
from refllm.verify.report import Report
from refllm.verify.reproduction import snippet

NAMES = ["mine.py", "my-adapter.py", "class.py", "2nd it's.py", "kind of.v2.py"]
RETURNS = [*((name, "y, back") for name in NAMES), ("2nd it's.py", "y"), ("2nd it's.py", "y, back, {}")]


@pytest.mark.parametrize(("name", "returns"), RETURNS)
def test_the_python_snippet_runs_whatever_the_file_is_called(
    name: str, returns: str, golden: corpus.Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_text(f"def relu(x):\n    y, back = 1.5 * x, lambda dy: 2 * dy\n    return {returns}\n")
    cases = [golden.cases["FFN/relu-grid"]]
    [result] = runner.run(adapter.from_file(path), cases, "float32", golden.C)
    shown = Report(name, shlex.quote(str(path)), "float32", golden.C, golden.spec_version, [result])
    lines = [line[4:] for line in snippet(shown, result) if line.startswith((">>> ", "... "))]
    space: dict[str, Any] = {}
    exec(compile("\n".join(lines), "snippet", "exec"), space)
    returned = space["returned"][0] if "," in returns else space["returned"]
    numpy.testing.assert_array_equal(returned, numpy.float32(1.5) * cases[0].inputs["x"].astype("float32"))
    assert ("{'x': Truth(" in capsys.readouterr().out) == ("," in returns)  # the gradients, where there are any
    assert snippet(shown, result)[0] == f"$ refllm verify {shlex.quote(str(path))} --dtype float32 --only FFN/relu-grid"
