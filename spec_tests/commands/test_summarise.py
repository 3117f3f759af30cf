"""Laws of `refllm summarise` where it differs from `refllm translate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refllm.cli import main
from spec_tests.commands.conftest import Refused
from spec_tests.pairs import TINY

ROWS = [
    {"body": f"The number {n} is here. It is followed by {n + 1}.", "headline": f"The number {n} is here."}
    for n in range(60)
]


@pytest.mark.every
def test_a_run_summarises_and_is_measured_beside_the_first_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], refused: Refused
) -> None:
    data = tmp_path / "articles.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    columns = ["--source", "body", "--target", "headline"]
    out = str(tmp_path / "run")
    how = ["--steps", "2", "--reports", "1", "--validation", "0.2", "--out", out, *TINY, "--context", "60"]
    assert main(["summarise", "fit", str(data), *columns, *how]) == 0
    capfd.readouterr()
    assert main(["summarise", "evaluate", out, str(data), *columns, "--json", "--threads", "1"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["texts"] == len(ROWS)
    assert list(found["scores"]) == ["greedy", "4 beams", "copy of the source", "first sentence"]
    assert found["scores"]["first sentence"]["exact"] == found["scores"]["first sentence"]["rouge_l"] == 100
    copied = 2 * 5 / (5 + 10)  # words: those of the first sentence in both, five of ten
    assert found["scores"]["copy of the source"]["rouge_l"] == pytest.approx(100 * copied, abs=1)
    assert main(["summarise", "predict", out, "--file", str(data), "--source", "body", "--json"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == [row["body"] for row in ROWS]
    assert all(isinstance(line["summary"], str) for line in lines)
    assert "is a run of summarise" in refused("translate", "fit", "--resume", out)
