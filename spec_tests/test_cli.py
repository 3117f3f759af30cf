"""Laws of the command line as a whole, and of importing the package."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import refllm
from refllm.cli import COMMANDS, main

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(refllm.__file__).resolve().parents[1])}


def python(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout


def test_it_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"refllm {refllm.__version__}\n"


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.count(f"refllm {command}") >= 2  # the usage, and an example


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "refllm: the following arguments are required: COMMAND; see refllm --help"),
        (["fly"], "refllm: argument COMMAND: invalid choice: 'fly'"),
        (["train", "--fly", "high"], "refllm: no such argument: --fly high; see refllm train --help"),
        (["translate", "fit", "--fly"], "refllm: no such argument: --fly; see refllm translate fit --help"),
        (["translate", "--fly", "fit"], "refllm: no such argument: --fly; see refllm translate --help"),
        (
            ["compress", "prune", "--out", "x", "--fly"],
            "refllm: no such argument: --fly; see refllm compress prune --help",
        ),
        (["--fly", "train"], "refllm: no such argument: --fly; see refllm --help"),
        (["train", "--steps", "many"], "refllm train: argument --steps: invalid int value: 'many'"),
        (["score"], "refllm score: one of the arguments --text --file is required"),
        (["classify", "fit", "--epochs", "x"], "refllm classify fit: argument --epochs: invalid float value: 'x'"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line_and_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as left:
        status = left.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert line.endswith("--help")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["train", "--data", ""], "--data"),
        (["train", "--data", "README.md", "", "--out", "x"], "--data"),
        (["train", "--out", ""], "--out"),
        (["pretrain", "--model", "bert", "--resume", ""], "--resume"),
        (["compare", "--plot", ""], "--plot"),
        (["score", "run", "--file", ""], "--file"),
        (["generate", ""], "RUN"),
        (["classify", "fit", "x.csv", "--from", ""], "--from"),
        (["classify", "fit", ""], "DATA"),
        (["classify", "predict", "run", "--file", ""], "--file"),
        (["translate", "fit", "a", "b", "--out", ""], "--out"),
        (["compress", "quantise", "run", "--out", ""], "--out"),
        (["explain", "run", "text", "--page", ""], "--page"),
    ],
)
def test_an_empty_name_of_a_file_or_folder_is_refused(
    arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"refllm: {name} is empty; name a file or folder, or leave it out\n"


@pytest.mark.parametrize("where", ["cli.module", "commands.train.keep_freed_memory"])
def test_ctrl_c_outside_a_training_is_one_line(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the command is loaded, too."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"refllm.{where}", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "refllm: interrupted\n"


def test_importing_the_package_loads_nothing_but_numpy() -> None:
    script = (
        "import sys; before = set(sys.modules); import refllm, refllm.models.gpt, refllm.run, refllm.cli\n"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(roots - set(sys.stdlib_module_names)))"
    )
    assert python(script) == "['numpy', 'refllm']\n"


def seconds(script: str, bytecode: Path) -> float:
    environment = {**ENVIRONMENT, "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, cwd="/")
    return time.perf_counter() - started


@pytest.mark.parametrize(
    "words",
    ["train --seed", "train --batch", "train --layers", "train --heads", "train --kv-heads", "train --steps",
     "train --reports", "train --context", "classify fit x.csv --layers", "translate fit x.csv --encoder-layers",
     "compress prune runs/001 --out o --steps", "generate runs/001 --tokens", "compare --heads"],
)  # fmt: skip
def test_a_number_that_nothing_has_so_many_of_is_refused_at_once(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = words.rsplit(maxsplit=1)[-1]
    for given in ("1" + "0" * 30, str(1 << 53)):
        assert main([*words.split(), given]) == 2
        assert capsys.readouterr().err.startswith(f"refllm: {flag} must be at most ")


@pytest.mark.parametrize("module", ["refllm", "refllm.models.gpt"])
def test_importing_takes_at_most_1_3_times_as_long_as_importing_numpy(module: str, tmp_path: Path) -> None:
    """Medians of alternating runs, all but the first from compiled bytecode; a busy machine gets two more chances."""
    scripts = ("import numpy", f"import {module}")
    for script in scripts:
        seconds(script, tmp_path)
    for _ in range(3):
        pairs = [[seconds(script, tmp_path) for script in scripts] for _ in range(5)]
        alone, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
        if whole <= 1.3 * alone:
            return
    pytest.fail(f"importing {module} takes {whole:.3f} s, numpy alone {alone:.3f} s")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.parametrize("kilobytes", [20_000, 60_000, 100_000])
def test_too_little_memory_to_load_numpy_ends_in_one_line(kilobytes: int) -> None:
    """Of refllm or, at some limits, of OpenBLAS, which ends the process itself."""
    limited = f"ulimit -v {kilobytes}; exec {shlex.quote(sys.executable)} -m refllm --version"
    ended = subprocess.run(["sh", "-c", limited], capture_output=True, text=True, check=False)
    assert len((ended.stdout + ended.stderr).splitlines()) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
