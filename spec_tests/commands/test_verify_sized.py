"""`refllm verify --size`: which cases run, what is written, and flags that speak of nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refllm.cli import main
from refllm.verify.sized import profiles
from refllm.verify.tensors import from_safetensors

ONE = "SMX/kernel-softmax-7x33-peaked"


def test_the_sizes_choose_the_cases(capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for size in ("tiny", "kernel", "all"):
        assert main(["verify", "--self", "--no-laws", "--only", "softmax", "--size", size, "--json"]) == 0
        found[size] = set(json.loads(capsys.readouterr().out)["results"])
    assert found["all"] == found["tiny"] | found["kernel"]
    assert not found["tiny"] & found["kernel"]
    assert ONE in found["kernel"]


@pytest.mark.parametrize("tensors", [True, False])
def test_a_request_says_how_its_tensors_are_made(tmp_path: Path, tensors: bool) -> None:
    more = ["--tensors"] if tensors else []
    said = ["verify", "--requests", str(tmp_path / "asked"), "--size", "kernel", "--only", ONE, "--dtype", "float32"]
    assert main([*said, *more]) == 0
    folder = tmp_path / "asked" / ONE
    record = json.loads((folder / "request.json").read_text())
    x = record["inputs"]["x"]
    assert x == {"dtype": "float32", "profile": "peaked", "shape": [7, 33]}
    assert (folder / "request.safetensors").is_file() == tensors
    if tensors:
        held = from_safetensors((folder / "request.safetensors").read_bytes(), "request")["inputs.x"][1]
        assert (held == profiles.made(x, record["seed"], "inputs.x")).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--self", "--slow"], "--slow is for the sized cases"),
        (["--self", "--tensors"], "--tensors is for --requests DIR"),
        (["--self", "--only", ONE], "no case is chosen"),
        (["--self", "--size", "kernel", "--level", "4"], "no case is chosen"),
    ],
)
def test_flags_that_speak_of_nothing_are_one_line(
    capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["verify", *flags]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]


def test_a_failure_says_its_place_and_how_it_is_seen_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import numpy\n\ndef softmax(x):\n    e = numpy.exp(x - x.max(axis=-1, keepdims=True))\n"
        "    y = e / e.sum(axis=-1, keepdims=True)\n    y[..., y.shape[-1] // 32 * 32 :] = 0\n    return y\n"
    )
    assert main(["verify", str(mine), "--size", "kernel", "--only", ONE, "--values", "--dtype", "float32"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "all of column 32 of 33 (the tail after whole tiles of 4 to 32)" in said
    assert "--size kernel" in said
    assert "from refllm.verify.sized import cases as sized" in said
