"""The page of released libraries is what was measured, and says what was not run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refllm.verify import corpus
from spec_tests.written_pages import commands

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("compare_libraries", ROOT / "scripts/compare_libraries.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_libraries"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


def test_the_page_is_what_was_measured(script: Any) -> None:
    data = json.loads((ROOT / "docs/data/libraries.json").read_text(encoding="utf-8"))
    assert script.page(data) == (ROOT / "docs/libraries.md").read_text(encoding="utf-8")
    assert set(data) <= {subject.name for subject in script.SUBJECTS}


def test_what_was_not_run_has_these_words_and_each_limit_its_input(script: Any) -> None:
    none = {"passed": 0, "value_only": 0, "failed": 0, "dtype": 0, "convention": 0, "skipped": 3}
    limit = {"operation": "relu", "dtype": "float32", "case": "FFN/relu", "status": "fail", "message": "a|b <c>",
             "input": "x = [1.0]", "more": 2}  # fmt: skip
    found = {"command": "refllm verify m", "versions": {"m": "1"}, "dtypes": {"float32": none}, "limits": [limit]}
    page = script.page({"m": found})
    assert "| m | m 1 | float32 | not run | 0 | 0 | 3 |" in page
    assert "| FFN/relu and 2 more | a\\|b &lt;c> | x = [1.0] |" in page


def test_a_limit_is_measured_with_its_smallest_case(script: Any, tmp_path: Path, golden: corpus.Corpus) -> None:
    (tmp_path / "mine.py").write_text("def relu(x):\n    return x, lambda dy: dy\n")
    subject = script.Subject("mine", str(tmp_path / "mine.py"), ("numpy",), dtypes=("float64",))
    found = script.measured(subject, golden)
    [limit] = found["limits"]
    assert limit["operation"] == "relu"
    assert limit["input"].startswith("x = [")
    assert found["dtypes"]["float64"]["failed"] == limit["more"] + 1


QUICK = {"torch.nn.utils", "torch", "keras.losses", "keras.optimizers.schedules"}  # the others take minutes


def names() -> list[Any]:
    data = json.loads((ROOT / "docs/data/libraries.json").read_text(encoding="utf-8"))
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in data]


@pytest.mark.oracle
@pytest.mark.parametrize("name", names())
def test_a_library_answers_what_the_page_says(script: Any, name: str, golden: corpus.Corpus) -> None:
    data = json.loads((ROOT / "docs/data/libraries.json").read_text(encoding="utf-8"))[name]
    subject = next(each for each in script.SUBJECTS if each.name == name)
    for package, version in data["versions"].items():
        try:
            there = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"needs {package}")
        if there != version:
            pytest.skip(f"measured with {package} {version}; this is {there}")
    found = script.measured(subject, golden)
    assert found["dtypes"] == data["dtypes"]
    assert [(x["operation"], x["dtype"], x["case"]) for x in found["limits"]] == [
        (x["operation"], x["dtype"], x["case"]) for x in data["limits"]
    ]


# A row asks for every case; here one operation is, whose name the library has.
ONE = {
    "torch.nn": "layer_norm", "torch.optim": "adam", "torch": "tanh", "flax.linen": "layer_norm", "optax": "adam",
    "jax.numpy": "matmul", "keras.layers": "layer_norm", "keras.losses": "cross_entropy",
    "scripts/adapters/torch_parallel_adapter.py": "column_parallel_linear",
    "scripts/adapters/transformers_adapter.py": "gelu_tanh",
}  # fmt: skip
EVERY = {"torch.nn.utils", "keras.optimizers.schedules"}  # who have a few cases


def rows() -> dict[str, list[str]]:
    """The commands of the page without their precision, and the precisions of each."""
    found: dict[str, list[str]] = {}
    for line in commands(ROOT / "docs/libraries.md"):
        command, _, dtype = line.text.partition(" --dtype ")
        found.setdefault(command, []).append(dtype)
    return found


def test_every_row_of_the_page_has_a_command_that_is_run() -> None:
    data = json.loads((ROOT / "docs/data/libraries.json").read_text(encoding="utf-8"))
    assert {found["command"] for found in data.values()} == set(rows())


@pytest.mark.slow  # minutes for all rows
@pytest.mark.oracle
@pytest.mark.parametrize("command", rows())
def test_the_command_of_a_row_works(command: str, script: Any) -> None:
    [subject] = [one for one in script.SUBJECTS if one.command == command]
    missing = [name for name in subject.packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    words = [word for word in shlex.split(command) if "=" not in word]
    words += ["--dtype", ",".join(rows()[command]), "--json", "--search", "0"]
    words += [] if subject.source in EVERY else ["--only", ONE.get(subject.source, "softmax")]
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env={**os.environ, **subject.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr[-2000:]  # 1: the library is not right, which the page says
    report = json.loads(done.stdout)
    runs = report.get("runs", [report])
    assert len(runs) == len(rows()[command])
    assert all(run["passed"] > 0 for run in runs)
