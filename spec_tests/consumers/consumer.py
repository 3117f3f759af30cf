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
        """Exit status and report of `refllm verify --cmd`."""
        command = f"{shlex.join(self.words)} answer {{request}} {{response}}"
        status = main(["verify", "--cmd", command, "--golden", str(GOLDEN), "--json", *flags])
        return status, json.loads(capsys.readouterr().out)


def level_1() -> list[Path]:
    return sorted((GOLDEN / "L1").glob("*.json"))


def tally(operations: tuple[str, ...]) -> tuple[int, int]:
    """Cases of level 1: of these operations, and of all others."""
    cases = [case["operation"] for path in level_1() for case in json.loads(path.read_bytes())["cases"]]
    had = sum(operation in operations for operation in cases)
    return had, len(cases) - had


def patched(source: str, mistakes: dict[str, tuple[str, str]]) -> str:
    """The text with every mistake planted."""
    for operation, (right, wrong) in mistakes.items():
        assert source.count(right) == 1, f"{operation}: {right!r} must stand once in the source"
        source = source.replace(right, wrong)
    return source


def malformed(directory: Path, kind: str) -> Path:
    """A golden file that is none, with the manifest where it should be."""
    folder = directory / "golden" / "L1"
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / "MANIFEST.json", folder.parent)
    path = folder / "softmax.json"
    content = (GOLDEN / "L1" / "softmax.json").read_bytes()
    if kind == "no file":
        return path
    if kind == "a directory":
        path.mkdir()
        return path
    if kind == "no manifest":
        (folder.parent / "MANIFEST.json").unlink()
    path.write_bytes(_spoiled(content, kind))
    return path


def _spoiled(content: bytes, kind: str) -> bytes:
    deep = 100_000
    spoiled = {
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
    x: dict[str, Any] = {
        "too few numbers": {"dtype": "float64", "shape": [2, 2], "data": [1.0]},
        "a huge shape": {"dtype": "float64", "shape": [1 << 40, 1 << 40], "data": [1.0]},
        "a negative shape": {"dtype": "float64", "shape": [-1], "data": [1.0]},
        "an axis of size 0": {"dtype": "float64", "shape": [0, 3], "data": []},
        "words for numbers": {"dtype": "float64", "shape": [1], "data": ["one"]},
        "another dtype": {"dtype": "complex128", "shape": [1], "data": [1.0]},
        "another shape than its truth": {"dtype": "float64", "shape": [1], "data": [1.0]},
    }
    truth = {"y": {"value": SMALL, "condition": {"dtype": "float64", "shape": [1, 1], "data": [1.0]}}}
    return {
        "id": "SMX/odd", "operation": "softmax", "inputs": {"x": x[kind]}, "keywords": {}, "outputs": truth,
    }  # fmt: skip


MALFORMED = (
    "no file", "a directory", "no manifest", "empty", "cut short", "cut short in a string", "without its last bracket",
    "something behind the end", "garbage", "a NUL in the middle", "not an object", "nested deep",
    "nested deep and open", "no cases", "a case that is no object", "too few numbers", "a huge shape",
    "a negative shape", "an axis of size 0", "words for numbers", "another dtype", "another shape than its truth",
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
