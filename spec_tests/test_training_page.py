"""Laws of report.html: it shows what the run has kept, whatever stands there, and nothing of it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.chart import short
from refllm.run import Run
from refllm.training_page import REPORT, read_lines, training_page
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.test_page import require_standalone

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8,
)  # fmt: skip
KEYS = st.sampled_from(["train_loss", "val_loss", "val_bpc", "lr", "norm", "seconds", "tokens_per_second"]) | st.text()
LINES = st.lists(
    st.builds(
        lambda step, rest: {**rest, "step": step}, st.integers(0, 10**9), st.dictionaries(KEYS, ANYTHING, max_size=6)
    ),
    max_size=4,
)


@given(LINES, st.dictionaries(st.text(), ANYTHING, max_size=4), st.text())
def test_whatever_a_run_has_kept_makes_a_page(lines: list[Any], found: dict[str, Any], text: str) -> None:
    description = {"model": text, "config": found, "settings": found, "plan": {}, "data": [text], "tokenizer": text}
    samples = [{"step": 3, "text": text}]
    summary = {**found, "val_bpc": 2.0, "baselines": {text: 3.0}}
    require_standalone(training_page(text, description, lines, text, samples, summary))


def test_lines_that_are_no_reports_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "lr": 1}\n[]\n{"step": "x"}\n\xff\xfe\n{"step": NaN}\n{"step": 2}\n{"st')
    assert [line["step"] for line in read_lines(path)] == [1, 2]
    assert read_lines(tmp_path / "none") == []


def test_a_run_leaves_its_page_with_every_report_and_setting(tmp_path: Path) -> None:
    run = tiny.train(tiny.begin(tmp_path, "run"))
    run.summarise({"uniform": 5.0})
    text = (tmp_path / "run" / REPORT).read_text(encoding="utf-8")
    said = " ".join(require_standalone(text).said)
    for name in ("Loss (nats)", "Learning rate", "Gradient norm", "Tokens per second", "Bits per character", "uniform"):
        assert name in said
    for line in tiny.metrics(tmp_path / "run"):
        assert short(line["val_bpc"]) in said
    for name in ("warmup", "beta2", "hidden", "context", "Complete: 12 steps"):
        assert name in said


def test_markup_and_chinese_in_a_sample_stay_text(tmp_path: Path) -> None:
    run = tiny.begin(tmp_path, "run")
    sample = "注意力机制</pre><script>alert(1)</script>&amp;"
    run.keeper.sampler = lambda: iter([sample])
    run.keeper.keep(1, sample)
    tiny.train(run)
    text = (tmp_path / "run" / REPORT).read_text(encoding="utf-8")
    assert sample in "".join(require_standalone(text).said)
    state = json.loads((tmp_path / "run/checkpoint/state.json").read_text())
    assert state["samples"] == [{"step": 1, "text": sample}]


def test_a_run_that_is_gone_on_with_keeps_its_samples(tmp_path: Path) -> None:
    run = tiny.begin(tmp_path, "run")
    run.keeper.keep(3, "一段文字")
    tiny.train(run, stop_after=5)
    assert "So far: 5 steps" in (tmp_path / "run" / REPORT).read_text(encoding="utf-8")
    again = Run.resume(tmp_path / "run", Workers)
    tiny.train(again)
    assert [sample["text"] for sample in again.keeper.samples] == ["一段文字"]
    text = (tmp_path / "run" / REPORT).read_text(encoding="utf-8")
    assert "一段文字" in text
    assert "Complete: 12 steps" in text


def test_a_page_that_cannot_be_written_changes_nothing_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny.bits(tiny.train(tiny.begin(tmp_path, "whole")))
    run = tiny.begin(tmp_path, "run")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("refllm.training_page.replace_page", full)
        tiny.train(run)
        run.summarise({})
    assert tiny.bits(run) == whole
    assert not (tmp_path / "run" / REPORT).exists()
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    run = tiny.train(tiny.begin(tmp_path, "run"), stop_after=5)
    (tmp_path / "run" / REPORT).write_text("mine")
    run = tiny.train(Run.resume(tmp_path / "run", Workers))
    assert run.done
    assert (tmp_path / "run" / REPORT).read_text() == "mine"
