"""A program that reads the golden files, and what is asked of it in every language."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from refllm.cli import main

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "golden"
SOURCES = ROOT / "scripts" / "consumers"

# operations that every consumer has
SHARED = ("linear", "matmul", "embedding", "layer_norm", "softmax", "cross_entropy", "gelu_erf", "gelu_tanh",
          "attention", "adam", "adamw")  # fmt: skip

SMALL = {"dtype": "float64", "shape": [1], "data": [1.0]}


@dataclass(frozen=True)
class Consumer:
    words: tuple[str, ...]  # the command

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*self.words, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def verify(self, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, Any]]:
        """Exit status and report of `refllm verify --cmd`, which starts the program once a case."""
        command = f"{shlex.join(self.words)} answer {{request}} {{response}}"
        return _verify(capsys, "--cmd", command, *flags)

    def verify_at_once(
        self, capsys: pytest.CaptureFixture[str], directory: Path, dtype: str
    ) -> tuple[int, dict[str, Any]]:
        """Exit status and report on all of level 1, answered by one start of the program."""
        flags = ("--level", "1", "--dtype", dtype)
        assert main(["verify", "--requests", str(directory), "--golden", str(GOLDEN), *flags]) == 0
        places = sorted(path.parent for path in directory.glob("**/request.json"))
        done = self("answer", *(place for place in places for _ in ("request", "response")))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        capsys.readouterr()
        return _verify(capsys, "--responses", str(directory), *flags)


def _verify(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, Any]]:
    status = main(["verify", "--golden", str(GOLDEN), "--json", *flags])
    return status, json.loads(capsys.readouterr().out)


def level_1() -> list[Path]:
    return sorted((GOLDEN / "L1").glob("*.json"))


def tally(operations: tuple[str, ...]) -> tuple[int, int]:
    """Cases of level 1: of these operations, and of all others."""
    cases = [case["operation"] for path in level_1() for case in json.loads(path.read_bytes())["cases"]]
    had = sum(operation in operations for operation in cases)
    return had, len(cases) - had


def operations_that_fail(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Of a run over level 1 that found mistakes."""
    assert (done.returncode, done.stderr) == (1, "")
    cases = [case for path in level_1() for case in json.loads(path.read_bytes())["cases"]]
    failed = failures(done)
    return {case["operation"] for case in cases if case["id"] in failed}


def failures(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The cases that a run says are wrong."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAIL ")]
    return {line.removeprefix("FAIL ").partition(":")[0] for line in lines}


def golden_file(directory: Path, content: bytes) -> Path:
    """A file of level 1 with the manifest where it should be."""
    folder = directory / "golden" / "L1"
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / "MANIFEST.json", folder.parent)
    path = folder / "cases.json"
    path.write_bytes(content)
    return path


def patched(source: str, mistakes: dict[str, tuple[str, str]]) -> str:
    """The text with every mistake planted."""
    for operation, (right, wrong) in mistakes.items():
        assert source.count(right) == 1, f"{operation}: {right!r} must stand once in the source"
        source = source.replace(right, wrong)
    return source


def malformed(directory: Path, kind: str) -> Path:
    """A golden file that is none."""
    path = golden_file(directory, _spoiled((GOLDEN / "L1" / "softmax.json").read_bytes(), kind))
    if kind in ("no file", "a directory"):
        path.unlink()
    if kind == "a directory":
        path.mkdir()
    if kind == "no manifest":
        (path.parents[1] / "MANIFEST.json").unlink()
    return path


def _spoiled(content: bytes, kind: str) -> bytes:
    deep = 100_000
    spoiled = {
        "no file": b"",
        "a directory": b"",
        "no manifest": content,
        "empty": b"",
        "cut short": content[: len(content) // 2],
        "cut short in a string": content[: content.index(b'"id"') + 10],
        "without its last bracket": content.rstrip()[:-1],
        "something behind the end": content + b"{}",
        "garbage": bytes(range(256)) * 8,
        "a NUL in the middle": content[:200] + b"\0" + content[201:],
        "not an object": b"[1, 2, 3]",
        "nested deep": b"[" * deep + b"]" * deep,
        "nested deep and open": b'{"cases":' * deep,
        "no cases": b'{"format": 1}',
        "a case that is no object": b'{"cases": [7]}',
    }
    return spoiled[kind] if kind in spoiled else json.dumps({"cases": [_odd_case(kind)]}).encode()


def _odd_case(kind: str) -> dict[str, Any]:
    """The softmax of 1, which is 1, with one thing wrong."""
    inputs: dict[str, Any] = {
        "too few numbers": {"dtype": "float64", "shape": [2, 2], "data": [1.0]},
        "a huge shape": {"dtype": "float64", "shape": [1 << 40, 1 << 40], "data": [1.0]},
        "a negative shape": {"dtype": "float64", "shape": [-1], "data": [1.0]},
        "an empty axis with a number": {"dtype": "float64", "shape": [0, 3], "data": [1.0]},
        "an empty axis before a huge one": {"dtype": "float64", "shape": [0, 1 << 27, 1 << 27], "data": []},
        "an empty axis behind a huge one": {"dtype": "float64", "shape": [1 << 27, 1 << 27, 0], "data": []},
        "a number without digits": {"dtype": "float64", "shape": [1], "data": [float("inf")]},
        "words for numbers": {"dtype": "float64", "shape": [1], "data": ["one"]},
        "another dtype": {"dtype": "complex128", "shape": [1], "data": [1.0]},
    }
    conditions: dict[str, Any] = {
        "a condition of another shape": {"dtype": "float64", "shape": [1, 1], "data": [1.0]},
        "a condition of NaN": {"dtype": "float64", "shape": [1], "data": ["NaN"]},
        "a condition without end": {"dtype": "float64", "shape": [1], "data": ["Infinity"]},
        "a negative condition": {"dtype": "float64", "shape": [1], "data": [-1.0]},
    }
    truth = {"y": {"value": SMALL, "condition": conditions.get(kind, SMALL)}}
    wide = {"outputs": {"y": conditions[kind.removeprefix("wide: ")]}} if kind.startswith("wide: ") else {}
    return {
        "id": "SMX/odd", "operation": "softmax", "inputs": {"x": inputs.get(kind, SMALL)}, "keywords": {},
        "outputs": truth, "wide": wide,
    }  # fmt: skip


MALFORMED = (
    "no file", "a directory", "no manifest", "empty", "cut short", "cut short in a string", "without its last bracket",
    "something behind the end", "garbage", "a NUL in the middle", "not an object", "nested deep",
    "nested deep and open", "no cases", "a case that is no object", "too few numbers", "a huge shape",
    "a negative shape", "an empty axis with a number", "an empty axis before a huge one",
    "an empty axis behind a huge one", "a number without digits", "words for numbers", "another dtype",
    "a condition of another shape", "a condition of NaN", "a condition without end", "a negative condition",
    "wide: a condition of another shape", "wide: a condition of NaN", "wide: a negative condition",
)  # fmt: skip


def ask(directory: Path, **changes: Any) -> tuple[Path, Path]:
    """A request for a softmax, with the changes, and the directory for the response."""
    request, response = directory / "request", directory / "response"
    request.mkdir()
    response.mkdir()
    record = {
        "format": 1, "id": "SMX/one", "operation": "softmax", "dtype": "float64", "order": ["x"], "outputs": ["y"],
        "inputs": {"x": SMALL}, "keywords": {}, "cotangents": {}, **changes,
    }  # fmt: skip
    (request / "request.json").write_text(json.dumps(record), encoding="utf-8")
    return request, response


def answer_in(response: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((response / "response.json").read_bytes())
    return answer
