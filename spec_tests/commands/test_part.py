"""Laws of what a command reads of much data in little time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refllm.cli import main
from refllm.data import part as part_module
from refllm.run import Run
from refllm.tasks import load
from refllm.workers import Workers
from spec_tests.data.test_part import PARAGRAPHS

SIZES = ["--heads", "2", "--width", "8", "--context", "24", "--batch", "4", "--threads", "1"]
ONE_LAYER = ["--layers", "1"]
PAIRED = ["--encoder-layers", "1", "--decoder-layers", "1"]
COMMANDS = {
    "llama": ["train", "--model", "llama"],
    "bert": ["train", "--model", "bert", "--vocabulary", "200"],
    "encoder_decoder": ["train", "--model", "encoder_decoder"],
    "classify": ["classify", "fit"],
    "answer": ["answer", "fit"],
    "translate": ["translate", "fit"],
}


def written(folder: Path, name: str) -> list[str]:
    """Data of that command."""
    path = folder / f"{name}.jsonl"
    if name == "classify":
        rows = [{"text": f"the {i} th text of them all", "label": "xyz"[i % 3]} for i in range(900)]
    elif name == "answer":
        rows = [{"context": f"the {i} th text", "question": "which?", "answer": str(i)} for i in range(900)]
    elif name == "translate":
        rows = [{"source": f"the {i} th text", "target": f"text {i}"} for i in range(900)]
    else:
        path.write_text(PARAGRAPHS, encoding="utf-8")
        return ["--data", str(path)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return [str(path)]


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_that_reads_a_part_says_so_and_reads_the_same_when_it_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for constant, value in {"PIECE": 500, "TRIED": 3000, "SHARE": 1e-5}.items():
        monkeypatch.setattr(part_module, constant, value)
    out = tmp_path / "run"
    layers = PAIRED if name in ("encoder_decoder", "translate") else ONE_LAYER
    given = [
        *COMMANDS[name],
        *written(tmp_path, name),
        "--minutes",
        "0.02",
        "--out",
        str(out),
        *SIZES,
        *layers,
    ]
    assert main(given) == 0
    shown = capfd.readouterr().out
    assert "evenly spread" in shown.split("model  ")[0]
    part = json.loads((out / "checkpoint" / "state.json").read_text())["part"]
    assert 1 <= part["train"] < 900
    again = Run.resume(out, Workers)
    assert again.task.introduced() in shown  # and the order of the data, whose checksum the state has, goes on
    assert again.task.describe()["part"] == part
    whole = {key: value for key, value in again.task.describe().items() if key != "part"}
    assert "evenly spread" not in load(whole).introduced()
