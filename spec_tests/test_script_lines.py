"""Every command line of a page that is not of refllm is run as it stands there, by a shell, in a copy of the checkout.

The copy is cut down: its scripts take the Python of this run instead of an environment of their own, and install
nothing. What is dear gets words behind it that ask for less.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spec_tests.furnished import furnish
from spec_tests.lines_elsewhere import is_elsewhere
from spec_tests.releasing.checkout import few as few_sources
from spec_tests.test_distribution import tracked
from spec_tests.tools import tool
from spec_tests.written_pages import PAGES, ROOT, Line, commands

PREPARED = """

def prepare(extras=(), packages=(), place=None):
    os.makedirs(place or PLACE, exist_ok=True)
    return sys.executable
"""
FEWER = '\nMUTANTS = tuple(mutant for mutant in MUTANTS if mutant.id.startswith("SMX/"))\n'
SHORTER_LSTM = "\nTRAINED, HELD_OUT, EPOCHS = 400, 100, 2\n\n\ndef lstm"
ADAPTER = "from refllm.verify.reference import functions\n\nglobals().update(functions())\n"


@dataclass(frozen=True)
class Shorter:
    """How a line that begins so is cut down, and what it needs."""

    begins: str
    more: str = ""
    within: str = ""  # behind the first two words, where the line does not end with them
    settings: dict[str, str] = field(default_factory=dict)
    few: bool = False  # in a copy of one file of cases, with the mistakes of its operation
    module: str = ""
    program: str = ""


ONE_FILE = {"PYTEST_ADDOPTS": "-o testpaths=spec_tests/test_chart.py"}
HOW = [
    Shorter("./scripts/test spec_tests/releasing", "-k archives"),
    Shorter("./scripts/test spec_tests/golden", "--ignore=spec_tests/golden/test_sized.py"),
    Shorter("./scripts/test spec_tests/ops", "--ignore=spec_tests/ops/test_every_operation.py"),
    Shorter("./scripts/test spec_tests"),
    Shorter("./scripts/test", settings=ONE_FILE),
    Shorter("./scripts/refllm install"),
    Shorter("python scripts/make_golden.py --check", "--only L1/relu"),
    Shorter("python scripts/make_golden.py"),
    Shorter("python scripts/make_notes.py", few=True),
    Shorter("./scripts/book_data.py kill_matrix", few=True),
    Shorter("scripts/book_data.py lstm"),
    Shorter("python scripts/calibrate_spread.py --sized", "--only refllm --operation silu --dtype float32"),
    Shorter("python scripts/calibrate_spread.py", "--only refllm --problem silu --dtype float32 --profile normal"),
    Shorter("scripts/context memory", "--contexts 32"),
    Shorter("scripts/context beyond", "--minutes 0.002 --lengths 64"),
    Shorter("python scripts/bench", "--sides refllm --only attention --longest 64 --rounds 1"),
    Shorter("scripts/measure_scaling.py", "--size tiny --steps 1 --rounds 1 --show", module="mpi4py"),
    Shorter("mpiexec", "--layers 1 --width 8 --tokens 8 --rounds 1", module="mpi4py", program="mpiexec"),
    Shorter("pytest spec_tests/ops", "-k softmax"),
    Shorter("pip install", "--dry-run --quiet --disable-pip-version-check"),
    Shorter("git status"),
    Shorter(
        "refllm train",
        within="--data my_texts --model gpt --width 8 --heads 2 --layers 1 --batch 4 --steps 4 --threads 1",
    ),
    Shorter("cc -std=c99", program="cc"),
    Shorter("./consumer check", program="cc"),
    Shorter("node ", program="node"),
]


def is_of_scripts(line: Line) -> bool:
    words = line.words
    return (words[0] != "refllm" or words[1:2] == ["install"] or "|" in words) and not is_elsewhere(line)


SCRIPTS = [*dict.fromkeys(line for page in PAGES for line in commands(page) if is_of_scripts(line))]
TEXTS = [*dict.fromkeys(line.text for line in SCRIPTS)]


def how(text: str) -> Shorter:
    found = [one for one in HOW if text.startswith(one.begins)]
    assert found, f"say in HOW how `{text}` is run"
    return found[0]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this one, with programs that are the Python of this run."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    _appended(folder / "scripts/environment.py", PREPARED)
    book = folder / "scripts/book_lstm.py"
    book.write_text(book.read_text(encoding="utf-8").replace("\n\n\ndef lstm", SHORTER_LSTM, 1), encoding="utf-8")
    furnish(folder)
    (folder / "my_adapter.py").write_text(ADAPTER)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / "bin").mkdir()
    for name, words in {
        "python": "",
        "python3": "",
        "refllm": "-m refllm ",
        "pytest": "-m pytest ",
        "pip": "-m pip ",
    }.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        (folder / "bin" / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def few(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few") / "checkout"
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns("golden"))
    shutil.copytree(checkout / "scripts/golden", folder / "scripts/golden")
    for path, content in few_sources("L1/softmax.json").files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / "scripts/golden/notes.toml").write_text("")
    _appended(folder / "refllm/verify/mutants/__init__.py", FEWER)
    return folder


def _appended(path: Path, code: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + code, encoding="utf-8")


def ran(text: str, folder: Path, one: Shorter) -> subprocess.CompletedProcess[str]:
    if one.within:
        text = " ".join([*text.split()[:2], one.within, *text.split()[2:]])
    words = f"{text.replace('NAME', 'relu').replace('TOPIC', 'softmax')} {one.more}".replace(
        " -k relu -k", " -k relu and"
    )
    if importlib.util.find_spec("matplotlib") is None:
        words = words.replace("--plot bench.png", "")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "REFLLM_"))}
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", words], cwd=folder, capture_output=True, text=True, timeout=600, check=False,
        env={**bare, "PATH": path, "PYTHONPATH": str(folder), **one.settings},
    )  # fmt: skip


def marked() -> list[object]:
    marks = {"pip install": pytest.mark.network}
    return [pytest.param(text, marks=marks.get(how(text).begins, pytest.mark.every)) for text in TEXTS]


@pytest.mark.parametrize("text", marked())
def test_a_line_of_a_page_works(text: str, request: pytest.FixtureRequest) -> None:
    one = how(text)
    if one.module and importlib.util.find_spec(one.module) is None:
        pytest.skip(f"{text}: needs {one.module}")
    if one.program:
        tool(one.program)
    done = ran(text, request.getfixturevalue("few" if one.few else "checkout"), one)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_every_line_says_how_it_is_run() -> None:
    assert all(any(text.startswith(one.begins) for text in TEXTS) for one in HOW)
    assert {how(text).begins for text in TEXTS} == {one.begins for one in HOW}


@pytest.mark.parametrize("text", TEXTS)
def test_every_script_of_a_page_is_there(text: str) -> None:
    for word in text.split():
        if word.startswith(("./scripts/", "scripts/")):
            assert (ROOT / word).is_file(), word
            is_called = text.startswith(word)
            assert not is_called or os.access(ROOT / word, os.X_OK), f"{word} is not executable: python {word}"
