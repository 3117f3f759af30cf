"""Every command line that stands in a page works: those of `refllm` are carried out, small, in their order."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refllm import cli
from spec_tests.commands.conftest import leave_the_allocator_alone
from spec_tests.named_models import write_models
from spec_tests.written_pages import PAGES, ROOT, Line, blocks, commands

LINES = [line for page in PAGES for line in commands(page)]
OWN = [line for line in LINES if line.words[0] == "refllm" and line.words[1:2] != ["install"]]
RUN = [line for line in OWN if line.in_block and not line.is_form]

ADAPTER = "import numpy\n\n\ndef layer_norm(x, g, b, *, eps):\n    return x\n"
KERNELS = (
    'SIGNATURES, ARRAYS = "torch", "numpy"\n\n\n'
    "def scaled_dot_product_attention(q, k, v, attn_mask=None, is_causal=False):\n    return v\n"
)
PROGRAM = "#!/bin/sh\nexit 3\n"


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def parser_for(words: list[str]) -> argparse.ArgumentParser:
    """That of a command, and of its verb."""
    parser = parsers(cli.parser(words[1]))[words[1]]
    return parsers(parser).get(words[2] if len(words) > 2 else "", parser)


@pytest.mark.parametrize("line", OWN, ids=lambda line: f"{line.page}: {line.text}")
def test_every_command_and_flag_of_a_page_is_there(line: Line) -> None:
    words = line.words
    if words[1].isupper():  # TASK, ARGS
        return
    if words[1].startswith("--"):
        assert words[1] in cli.parser(None)._option_string_actions
        return
    assert words[1] in cli.COMMANDS
    known = parser_for(words)._option_string_actions
    for flag in (word for word in words[2:] if word.startswith("--")):
        assert flag in known, flag
        if (choices := known[flag].choices) and flag != words[-1]:
            value = words[words.index(flag) + 1]
            assert value in [*choices] or value.isupper()


@pytest.mark.parametrize(
    "line", [line for line in LINES if line.words[0] != "refllm"], ids=lambda line: f"{line.page}: {line.text}"
)
def test_every_script_of_a_page_is_there_with_its_flags(line: Line) -> None:
    words = [word for word in line.words if word not in ("python", "-m")]
    if words[0] == "refllm":
        return
    script = ROOT / words[0]
    assert script.is_file()
    source = script.read_text(encoding="utf-8") + "".join(
        path.read_text(encoding="utf-8")
        for package in re.findall(r'"-m", "(\w+)"|from (\w+)', script.read_text(encoding="utf-8"))
        for path in (ROOT / "scripts" / next(filter(None, package))).glob("**/*.py")
    )
    source += (ROOT / "spec_tests/conftest.py").read_text(encoding="utf-8") if words[0].endswith("test") else ""
    for flag in (word.partition("=")[0] for word in words[1:] if word.startswith("--")):
        assert flag in source, flag


# What no line of refllm or of scripts/ is, and the test that runs it.
ELSEWHERE = {
    "pytest --refllm": "spec_tests/test_pytest.py",
    "cc -O2 -shared": "spec_tests/test_command_lines.py",
    "cd release && sha256sum": "spec_tests/releasing/test_packages.py",
    "... write": "spec_tests/commands/test_verify.py",  # words, in the place of a program of the reader's
}
PROGRAM_LINE = re.compile(r"\$ |\./|(?:python|pytest|pip|cc|cd|cp|git|npm|node|go|cargo|sh|bash|mpirun|mpiexec) ")


def test_no_command_of_a_block_is_overlooked() -> None:
    overlooked = []
    for page in PAGES:
        known = {line.text for line in commands(page)}
        lines = (line for code in blocks(page, "") for line in code.splitlines() if PROGRAM_LINE.match(line))
        bare = [re.split(r" {2,}", line)[0].removeprefix("$ ") for line in lines]
        overlooked += [line for line in bare if line not in known and not any(map(line.startswith, ELSEWHERE))]
    assert overlooked == []


def test_what_runs_elsewhere_has_a_test() -> None:
    assert all((ROOT / file).is_file() for file in ELSEWHERE.values())


def test_there_are_commands_in_the_pages_for_users() -> None:
    assert {"README.md", "docs/training.md", "docs/tasks.md", "docs/quick-start.md", "docs/explain.md"} <= {
        line.page for line in RUN
    }


@pytest.fixture
def furnished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    leave_the_allocator_alone(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        f"I read it {n} times and it was {'good' if n % 2 else 'bad'},{'good' if n % 2 else 'bad'}" for n in range(60)
    ]
    for name in ("reviews.csv", "more.csv", "train.csv", "test.csv"):
        (tmp_path / name).write_text("\n".join(["text,label", *rows]) + "\n")
    documents = "\n\n".join(
        " ".join(f"{n} times {m} is {n * m}." for m in range(1, 13)) for n in range(1, 40)
    )  # of sentences, with blank lines between
    for name in ("my_texts", "texts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(documents)
    (tmp_path / "text.txt").write_text(documents)
    for name, word in (("talks.en", "is"), ("talks.de", "ist")):
        (tmp_path / name).write_text("".join(f"{n} times two {word} {2 * n}\n" for n in range(60)))
    for name in ("my_adapter.py", "my_attention.py"):
        (tmp_path / name).write_text(ADAPTER)
    (tmp_path / "my_kernels.py").write_text(KERNELS)
    (tmp_path / "my_impl").write_text(PROGRAM)
    (tmp_path / "my_impl").chmod(0o755)
    return tmp_path


SIZES = {"width": "8", "heads": "2", "context": "32", "batch": "4", "threads": "1", "reports": "2"}
LEARNS = ("train", "pretrain", "compare", "fit", "distil")


def small(words: list[str]) -> list[str]:
    """The same command, of a training that takes a moment."""
    words = list(words[1:])
    learns = [word for word in words[:2] if word in LEARNS]
    if not learns or "--help" in words:
        return words
    for flag, value in (("--minutes", "0.005"), ("--steps", "4"), ("--vocabulary", "300")):
        if flag in words:
            words[words.index(flag) + 1] = value
    if "distil" in words:
        words[words.index("--width") + 1] = "4"  # a student is smaller than its teacher
    if words[0] in ("train", "compare") and not {"--data", "--resume"} & set(words):
        words += ["--data", "my_texts"]  # the Python reference takes seconds to read
    known = parser_for(["refllm", *words])._option_string_actions
    if "--resume" not in words:
        words += [] if {"--minutes", "--steps"} & set(words) or "--steps" not in known else ["--steps", "4"]
        kept = ("threads", "batch", "reports") if "--from" in words else SIZES
        words += [
            w for name in kept if f"--{name}" in known and f"--{name}" not in words for w in (f"--{name}", SIZES[name])
        ]
        words += ["--kv-heads", "1"] if _is_llama(words) and "--from" not in words else []
    if words[0] == "compare":
        words += ["--models", "ngram", "nnlm", "gpt"]
    return words


def _is_llama(words: list[str]) -> bool:
    return words[0] == "train" and ("--model" not in words or words[words.index("--model") + 1] == "llama")


def carried_out(words: list[str]) -> tuple[int, str]:
    """The exit status of a command, and what it says."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(words)
        except SystemExit as left:  # --help
            status = int(left.code or 0)
    return status, out.getvalue()[-2000:] + err.getvalue()[-2000:]


def expected(words: list[str]) -> tuple[int, ...]:
    """0; of an implementation that is wrong 1, and of answers that nobody has written 2. So without what it needs."""
    needed = {"torch": any(word.startswith("torch.") for word in words), "mpi4py": "--ranks" in words}
    if any(importlib.util.find_spec(name) is None for name, is_needed in needed.items() if is_needed):
        return (2,)
    right = ("--self", "--requests", "--kit", "--header", "--lib", "--serve")  # the starter kits are right as they are
    if words[0] != "verify" or set(right) & set(words):
        return (0,)
    if "--responses" in words:
        return (2,)
    return (1,) if "--cmd" in words or words[1:2] != [] else (0,)


def prepared(line: Line, folder: Path) -> None:
    """What stands in a page as done before, outside it."""
    if ("runs/001" in line.text or line.text.startswith("refllm runs")) and not (folder / "runs/001").exists():
        assert carried_out(small(["refllm", "train", "--data", "my_texts", "--out", "runs/001"]))[0] == 0
    if "models/" in line.text and not (folder / "models").exists():
        write_models(folder)
    if "my_attention" in line.text:
        (folder / "my_attention.py").write_text("def attention(q, k, v, *, causal, allowed):\n    return v\n")
    if "--lib" in line.words:  # the line before it in the page, which is no command of refllm
        [build] = [text for code in blocks(line.page, "") for text in code.splitlines() if text.startswith("$ cc ")]
        subprocess.run(shlex.split(build)[1:], cwd=folder, check=True)


def tool_for(line: Line) -> str:
    """The program that a line needs beside refllm."""
    return "cc" if "--lib" in line.words else "node" if "--serve" in line.words else ""


QUICK = {"README.md", "docs/quick-start.md", "docs/run-directory.md", "docs/training.md"}


def pages() -> Iterator[Any]:
    for page in dict.fromkeys(line.page for line in RUN):
        if page != "README.zh.md":  # which has the lines of README.md: spec_tests/test_readme.py
            yield pytest.param(page, marks=() if page in QUICK else pytest.mark.slow)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("page", [*pages()])
def test_the_commands_of_a_page_work_one_after_the_other(page: str, furnished: Path) -> None:
    for line in (line for line in RUN if line.page == page):
        if (tool := tool_for(line)) and shutil.which(tool) is None:
            continue
        prepared(line, furnished)
        words = small(line.words)
        if "--picture" in words and importlib.util.find_spec("matplotlib") is None:
            del words[words.index("--picture") : words.index("--picture") + 2]
        status, said = carried_out(words)
        assert status in expected(words), f"{line.text}\n{words}\n{said}"
        if "--page" in words:  # which the next line of the page writes again
            Path(words[words.index("--page") + 1]).unlink()
    shutil.rmtree(furnished / "runs", ignore_errors=True)
