"""The plugin of pytest: a test a case, the diagnosis in the failure, and nothing where it is not used."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from spec_tests.written_pages import PAGES, ROOT, commands

ADAPTER = """
import numpy as np

def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()

def relu(x):
    return np.maximum(x, 0), lambda dy: dy * (x > 0)

def tanh(x):
    return np.tanh(x)
"""
LIVE = """
import numpy as np
import pytest

def my_relu(x):
    return np.maximum(x, 0), lambda dy: dy * (x > 0)

@pytest.mark.refllm("relu", dtype="float32")
def test_relu(refllm_case):
    refllm_case.check(my_relu)

@pytest.mark.refllm("relu", only="FFN/relu-grid")
def test_wrong(refllm_case):
    refllm_case.check(lambda x: (abs(x), lambda dy: dy))
"""


def run(folder: Path, *words: str) -> tuple[int, str]:
    """pytest in a folder of its own."""
    how = ["-p", "refllm.pytest", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, *how, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.every
def test_an_adapter_has_a_test_a_case_with_the_diagnosis_in_the_failure(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ADAPTER)
    status, said = run(tmp_path, "--refllm", "mine.py", "--refllm-values", "-v", "--junit-xml", "found.xml")
    assert status == 1
    assert "mine.py::SMX/softmax-rows-float64 FAILED" in said or "FAILED mine.py::SMX/" in said
    assert "mine.py::FFN/relu-grid-float64 PASSED" in said
    assert "diagnosis" in said
    assert "verify mine.py --only SMX/" in said
    assert "Traceback" not in said
    tests = ET.parse(tmp_path / "found.xml").getroot().findall(".//testcase")
    assert len(tests) > 15
    assert any("diagnosis" in (f.text or "") for t in tests for f in t.findall("failure"))


@pytest.mark.slow
def test_a_value_without_a_gradient_is_skipped_and_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ADAPTER)
    status, said = run(tmp_path, "--refllm", "mine.py", "--refllm-only", "tanh", "-rs")
    assert status == 0
    assert "value passed, gradient not given" in said


@pytest.mark.slow
def test_tests_choose_by_k_as_others(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ADAPTER)
    status, said = run(tmp_path, "--refllm", "mine.py", "-k", "relu-grid", "-q")
    assert status == 0
    assert "1 passed" in said
    assert "deselected" in said


@pytest.mark.slow
def test_a_live_function_has_a_test_a_case(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(LIVE)
    status, said = run(tmp_path, "-q", "--strict-markers")
    assert status == 1
    assert "1 failed, 6 passed" in said
    assert "FFN/relu-grid" in said


LINES = [line.text for page in PAGES for line in commands(page) if line.text.startswith("pytest --refllm")]


@pytest.mark.every
@pytest.mark.parametrize("line", LINES)
def test_the_command_lines_of_the_pages_work(line: str, tmp_path: Path) -> None:
    (tmp_path / "my_adapter.py").write_text(ADAPTER)
    (tmp_path / "my_kernels.py").write_text(
        "ARRAYS = 'numpy'\ndef scaled_dot_product_attention(q, k, v, attn_mask=None, is_causal=False):\n    return v\n"
    )
    status, said = run(tmp_path, *shlex.split(line)[1:])
    assert status == 1, said
    assert "failed" in said


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--refllm", "not_there.py"], "not_there.py is no Python file"),
        (["test_bad.py"], "'layernorm' is no operation"),
        slow(["--refllm", "mine.py", "--refllm-dtype", "float8"], "'float8' is none of float64"),
        slow(["--refllm", "mine.py", "--refllm-only", "ATT"], "no case is of what it has (relu, softmax, tanh)"),
        slow(["test_none.py"], "takes refllm_case: say of what"),
    ],
)
def test_what_cannot_be_run_is_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "mine.py").write_text(ADAPTER)
    bad = "import pytest\n@pytest.mark.refllm('layernorm')\ndef test_it(refllm_case): ...\n"
    (tmp_path / "test_bad.py").write_text(bad)
    (tmp_path / "test_none.py").write_text("def test_it(refllm_case): ...\n")
    status, said = run(tmp_path, *words)
    assert status != 0
    assert message in said
    assert "INTERNALERROR" not in said


@pytest.mark.slow
def test_nothing_is_imported_where_the_plugin_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it():\n    assert [n for n in sys.modules if n.startswith(('refllm.', 'numpy'))] == "
        "['refllm.pytest']\n"
    )
    status, said = run(tmp_path, "-q")
    assert status == 0, said


def test_the_plugin_is_there_once_the_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"refllm.pytest": "refllm.pytest"}
