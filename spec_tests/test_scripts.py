"""Laws of the scripts of a checkout: each answers --help in any Python, and the environment keeps what was added."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    path
    for folder in (ROOT / "scripts", ROOT / "scripts/data")
    for path in folder.iterdir()
    if path.is_file() and (path.suffix == "" or '__name__ == "__main__"' in path.read_text(encoding="utf-8"))
)
_NEED_NUMPY = (
    "bench", "context", "gpu_check", "calibrate", "make_golden", "make_notes", "compare_libraries", "measure_scaling",
)  # fmt: skip
NEED_NUMPY = [path for path in SCRIPTS if path.stem in _NEED_NUMPY]
BARE = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "REFLLM_COMMAND")}


def called(script: Path, *words: str, bare: bool) -> subprocess.CompletedProcess[str]:
    """With `bare` by a Python that finds no installed package."""
    python = [sys.executable, *(["-S"] if bare else [])]
    return subprocess.run(
        [*python, str(script), *words], env=BARE, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.one_in(16)
@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.name != "refllm"], ids=lambda path: path.name)
@pytest.mark.parametrize("bare", [True, False])
def test_every_script_answers_help(script: Path, bare: bool) -> None:
    done = called(script, "--help", bare=bare)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 1 or script.name == "lint"


def test_the_script_of_the_command_line_answers_how_it_installs() -> None:
    done = called(ROOT / "scripts/refllm", "install", "--help", bare=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "plot" in done.stdout
    assert "matplotlib" in done.stdout


@pytest.mark.parametrize("script", NEED_NUMPY, ids=lambda path: path.name)
def test_what_a_python_lacks_is_one_line(script: Path) -> None:
    done = called(script, bare=True)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script.name}: this Python has no numpy")
    assert "pip install numpy" in line


def test_the_scripts_that_need_numpy_are_known() -> None:
    assert len(NEED_NUMPY) == 8


@pytest.mark.parametrize("words", [["install"], ["install", "plott"], ["install", "plot", "no such"]])
def test_a_part_that_there_is_not_is_one_line_and_installs_nothing(words: list[str]) -> None:
    done = called(ROOT / "scripts/refllm", *words, bare=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "eval, explain, gpu-cuda12, gpu-cuda13, lint, mpi, plot, test" in line
    assert "scripts/refllm install plot" in line


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """scripts/environment.py with a place of its own, a venv that is a folder and a pip that only notes."""
    spec = importlib.util.spec_from_file_location("environment_on_trial", ROOT / "scripts/environment.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PLACE = str(tmp_path / "place")
    module.noted = []
    monkeypatch.setattr(module, "install_packages", lambda python, packages: module.noted.append(list(packages)))

    def create(place: str, **_: object) -> None:
        (Path(place) / "bin").mkdir(parents=True)
        (Path(place) / "bin/python").touch()

    monkeypatch.setattr("venv.create", create)
    return module


def test_an_optional_part_that_was_added_stays(environment: Any) -> None:
    environment.install(["plot"], "./scripts/refllm")
    assert environment.noted[-1][-1] == "matplotlib>=3.9"
    times = len(environment.noted)
    environment.prepare()
    environment.prepare(("plot",))
    assert len(environment.noted) == times  # it is there
    environment.prepare(("test",))
    assert {"matplotlib>=3.9", "mpmath>=1.3"} <= set(environment.noted[-1])
    environment.install(["eval"], "./scripts/refllm")
    assert environment.added_extras(environment.PLACE) == ["plot", "eval"]
    environment.prepare()
    assert {"matplotlib>=3.9", "sacrebleu>=2.4"} <= set(environment.noted[-1])


def test_an_environment_that_is_made_anew_gets_its_parts_again(environment: Any) -> None:
    environment.install(["plot"], "./scripts/refllm")
    (Path(environment.PLACE) / "bin/python").unlink()  # its Python was removed
    for stamp in Path(environment.PLACE).glob("ready-*"):
        stamp.unlink()
    (Path(environment.PLACE) / "bin").rmdir()
    environment.prepare()
    assert "matplotlib>=3.9" in environment.noted[-1]
    assert environment.added_extras(environment.PLACE) == ["plot"]


def test_a_part_that_the_project_no_longer_has_is_forgotten(environment: Any) -> None:
    environment.prepare()
    environment.keep_added(environment.PLACE, ["plot", "gone"])
    assert environment.added_extras(environment.PLACE) == ["plot"]


def test_a_failed_installation_is_one_line(tmp_path: Path) -> None:
    """The pip of this environment finds no index; what it says last is passed on."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import environment; "
        "environment.install_packages(sys.executable, ['no-such-package-of-refllm'])"
    )
    nowhere = {**BARE, "PIP_NO_INDEX": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "could not be installed, for which the network is needed once (ERROR: No matching distribution" in line
