"""A wrong answer that does not come again alone is that of no mistake: an earlier call is its cause, and is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from refllm.cli import main
from refllm.numbers import plans
from refllm.verify import corpus
from refllm.verify.isolated import Isolated
from refllm.verify.runner import Result
from refllm.verify.sized import cases, judge
from refllm.verify.sized.alone import tried_alone

KNOWN = cases.load(corpus.folder(None))
SQUARE, LONG = "ATT/kernel-attention-5x33x33x64-normal-causal", "ATT/kernel-attention-1x33x2049x64-normal-causal"
OTHER = "ATT/kernel-attention-3x127x127x65-normal-causal"
CONTINUED = "\\ "  # a line of a command
KEPT = """
import numpy as np

MASKS = {}


def attention(q, k, v, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    s = q @ k.swapaxes(-1, -2) / q.dtype.type(q.shape[-1] ** 0.5)
    offset = MASKS.setdefault(T, S - T) if %s else S - T
    s = np.where(np.tril(np.ones((T, S), bool), offset), s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return (p / p.sum(-1, keepdims=True)) @ v
"""


def tried(folder: Path, kept: str) -> list[Result]:
    chosen, plan = [KNOWN[id] for id in (SQUARE, OTHER, LONG)], plans.plan("eager", "float32")
    (folder / "mine.py").write_text(KEPT % kept)
    with Isolated(folder / "mine.py", 60, alone=True) as mine:
        results = list(judge.run(mine, chosen, "float32", plan, values=True))
        return tried_alone(results, chosen, mine.fresh, "float32", plan, values=True)


def test_what_an_earlier_call_left_is_found_with_that_call(tmp_path: Path) -> None:
    square, other, long = tried(tmp_path, "True")
    assert (square.status, other.status, long.status) == ("pass", "pass", "fail")
    assert long.alone is True
    assert long.after == SQUARE


def test_right_answers_are_not_asked_again(tmp_path: Path) -> None:
    assert [result.alone for result in tried(tmp_path, "False")] == [None, None, None]


def test_no_mistake_is_named_for_an_answer_that_does_not_come_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(KEPT % "True")
    chosen = [word for id in (SQUARE, OTHER, LONG) for word in ("--only", id)]
    how = ["--size", "kernel", "--dtype", "float32", "--values", "--no-laws", *chosen]
    assert main(["verify", str(tmp_path / "mine.py"), *how]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"alone this case passes: it fails after {SQUARE}, of which something is left" in said
    assert "equal to" not in said
    assert f"--only {SQUARE} --only {LONG}" in said.replace(CONTINUED, "")  # what shows it again


def test_what_comes_again_alone_keeps_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text((KEPT % "False").replace("p.sum(-1, keepdims=True)", "1"))
    how = ["--size", "kernel", "--dtype", "float32", "--values", "--no-laws", "--only", SQUARE, "--only", OTHER]
    assert main(["verify", str(tmp_path / "mine.py"), *how]) == 1
    assert "alone this case passes" not in capsys.readouterr().out
