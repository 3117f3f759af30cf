"""Laws of `refllm compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refllm.cli import main
from refllm.commands.compare import ALL
from spec_tests import tiny
from spec_tests.commands.conftest import Refused

SMALL = [
    "--tokenizer", "character", "--layers", "2", "--heads", "2", "--width", "8", "--hidden", "8", "--context", "16",
    "--kv-heads", "1", "--threads", "1", "--minutes", "0.005",
]  # fmt: skip


def test_every_language_model_has_a_row_sorted_by_bits_per_character(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--data", str(tiny.data(tmp_path)), "--out", "c", "--json", *SMALL]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert {row["name"] for row in rows} == set(ALL)
    assert all(row.keys() >= {"name", "val_bpc", "perplexity", "parameters", "seconds"} for row in rows)
    assert [row["val_bpc"] for row in rows] == sorted(row["val_bpc"] for row in rows)
    for row in rows:  # one token a character: bits are the logarithm of the perplexity
        assert row["perplexity"] == pytest.approx(2 ** row["val_bpc"], rel=1e-9)
    assert json.loads((tmp_path / "c" / "compare.json").read_text()) == rows
    assert main(["generate", "c/nnlm", "--tokens", "3"]) == 0


def test_the_table_is_printed_with_a_line_a_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = str(tiny.data(tmp_path))
    assert main(["compare", "--data", data, "--models", "ngram", "nnlm", "--out", "c", *SMALL]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "bits/char", "perplexity", "parameters", "steps", "seconds"]
    assert sorted(line.split()[0] for line in lines[1:]) == ["ngram", "nnlm"]


def test_nothing_is_overwritten(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("mine")
    said = refused("compare", "--data", str(tiny.data(tmp_path)), "--out", "c", *SMALL)
    assert "is not empty and will not be overwritten; choose another --out\n" in said
    said = refused("compare", "--data", str(tiny.data(tmp_path)), "--out", "d", "--plot", "none/c.png", *SMALL)
    assert "none/c.png cannot be written: none is not a folder" in said
    for name, says in (("c/mine.png", "is there already and will not be overwritten"), ("c", "must end in .png or")):
        (tmp_path / "c" / "mine.png").write_bytes(b"mine")
        assert says in refused("compare", "--data", str(tiny.data(tmp_path)), "--out", "d", "--plot", name, *SMALL)
    (tmp_path / "folder.png").mkdir()
    said = refused("compare", "--data", str(tiny.data(tmp_path)), "--out", "d", "--plot", "folder.png", *SMALL)
    assert "folder.png is there already" in said


def test_tokens_that_lose_some_of_the_text_are_compared_by_bits_per_token(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "--tokenizer", "word", "--vocabulary", "12"]
    how = ["compare", "--data", str(tiny.data(tmp_path)), "--models", "ngram", "nnlm", "--out", "c"]
    assert main([*how, *words]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["model", "bits/token", "perplexity"]
    assert "These tokens do not give the text back" in lines[-1]
    rows = json.loads((tmp_path / "c" / "compare.json").read_text())
    for row in rows:
        assert "val_bpc" not in row
        assert row["perplexity"] == pytest.approx(2 ** row["val_bpt"], rel=1e-9)
