"""The generator of sized cases is the same to the bit in every language: words, numbers, probes and signs."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from refllm.verify.sized import generator, probes, profiles
from spec_tests.consumers.consumer import GOLDEN, SOURCES
from spec_tests.tools import tool

pytestmark = pytest.mark.tools

VECTORS = json.loads((GOLDEN / "sized" / "generator.json").read_text(encoding="utf-8"))
LANGUAGES = {
    "c": ("sized.c", "cc"), "rust": ("sized.rs", "rustc"), "go": ("sized.go", "go"), "javascript": ("sized.js", "node"),
}  # fmt: skip
FLOATS = ("normal", "positive", "peaked", "offset", "low", "wide", "outlier", "subnormal", "masked")

Program = Callable[..., list[str]]


def _compiled(language: str, folder: Path) -> list[str]:
    """The command that runs the program of a language; its compiler is asked for here."""
    source = (
        SOURCES / language / {"c": "sized.c", "rust": "sized.rs", "go": "sized.go", "javascript": "sized.js"}[language]
    )
    compiler = tool({"c": "cc", "rust": "rustc", "go": "go", "javascript": "node"}[language])
    program = folder / "sized"
    build: dict[str, list[str | Path]] = {
        "c": [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-o", program, source, "-lm"],
        "rust": [compiler, "-D", "warnings", "-o", program, source],
        "go": [compiler, "build", "-o", program, source],
    }  # fmt: skip
    if language not in build:
        return [compiler, str(source)]
    environment = {**os.environ, "GOCACHE": str(folder / "cache"), "GO111MODULE": "off"}
    done = subprocess.run(build[language], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [str(program)]


@pytest.fixture(scope="module", params=list(LANGUAGES))
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    command = _compiled(request.param, tmp_path_factory.mktemp(request.param))

    def run(*words: object) -> list[str]:
        done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.split()

    return run


def _floats(lines: list[str]) -> list[float]:
    return [float({"-inf": "-inf", "-Inf": "-inf", "-Infinity": "-inf"}.get(x, x)) for x in lines]


def test_words_are_those_of_the_vectors(program: Program) -> None:
    for entry in VECTORS["words"]:
        assert program("words", entry["seed"], entry["name"], entry["first"], len(entry["words"])) == entry["words"]


def test_numbers_are_those_of_the_vectors(program: Program) -> None:
    for entry in VECTORS["tensors"]:
        recipe = entry["recipe"]
        if recipe["profile"] in FLOATS and "exponent" not in recipe:
            found = program("tensor", recipe["profile"], entry["seed"], entry["name"], *_rows(recipe["shape"]))
            assert _floats(found) == [-math.inf if x == "-Infinity" else x for x in entry["values"]]


def test_a_row_of_every_profile_is_that_of_python(program: Program) -> None:
    for profile in FLOATS:
        recipe = {"profile": profile, "shape": [5, 67]}
        found = _floats(program("tensor", profile, 2**64 - 1, "inputs.x", 5, 67))
        np.testing.assert_array_equal(found, profiles.made(recipe, 2**64 - 1, "inputs.x").reshape(-1))


def test_whole_numbers_are_those_of_python(program: Program) -> None:
    recipe = {"profile": "integers", "shape": [3, 41], "below": 128256}
    found = program("tensor", "integers", 7, "keywords.ids", 3, 41, 128256)
    assert list(map(int, found)) == profiles.made(recipe, 7, "keywords.ids").reshape(-1).tolist()


@pytest.mark.parametrize("shape", [(1,), (33, 1025), (3, 7, 2049, 64), (128256,)])
def test_probes_are_those_of_python(program: Program, shape: tuple[int, ...]) -> None:
    found = program("probes", 11, "outputs.y", *shape)
    assert list(map(int, found)) == probes.probes(shape, 11, "outputs.y").tolist()


def test_signs_are_those_of_python(program: Program) -> None:
    assert _floats(program("signs", 11, "outputs.y", 100)) == probes.signs(100, 11, "outputs.y").tolist()


def test_the_vectors_are_those_of_python() -> None:
    for entry in VECTORS["words"]:
        found = generator.words(generator.stream(entry["seed"], entry["name"]), entry["first"], len(entry["words"]))
        assert [f"{int(w):016x}" for w in found] == entry["words"]


def _rows(shape: list[int]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1] if shape else 1
