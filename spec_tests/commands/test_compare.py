"""Laws of `refllm compare`."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest

from refllm.cli import main
from refllm.commands import compare
from refllm.commands.compare import ALL
from refllm.directory import occupied
from refllm.errors import UserError
from spec_tests import tiny
from spec_tests.commands.conftest import Refused
from spec_tests.test_page import require_standalone

TINY = [
    "--tokenizer", "character", "--width", "8", "--hidden", "8", "--context", "16", "--threads", "1",
    "--minutes", "0.005",
]  # fmt: skip
WITH_HEADS = [*TINY, "--layers", "2", "--heads", "2"]
SMALL = [*WITH_HEADS, "--kv-heads", "1"]


@pytest.mark.slow
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
    assert main(["compare", "--data", data, "--models", "ngram", "nnlm", "--out", "c", *TINY]) == 0
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


def test_one_comparison_at_a_time_writes_a_directory(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one that began between the look at the directory and its lock is refused before anything is trained."""
    given = ["compare", "--data", str(tiny.data(tmp_path)), "--models", "ngram", "nnlm", "--out", "c", *TINY]
    said: list[int] = []
    monkeypatch.setattr(compare, "require_empty", lambda out: None)
    with occupied(tmp_path / "c", until="x", fresh=True):
        thread = threading.Thread(target=lambda: said.append(main(given)))
        thread.start()
        thread.join()
    assert said == [2]
    assert "is being written by process" in capfd.readouterr().err
    assert not (tmp_path / "c").exists() or not list((tmp_path / "c").iterdir())


def test_a_comparison_that_fails_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise UserError("no")

    monkeypatch.setattr(compare, "_row", failing)
    given = ["compare", "--data", str(tiny.data(tmp_path)), "--models", "ngram", "nnlm", "--out", "c/d", *TINY]
    assert main(given) == 2
    assert not (tmp_path / "c").exists()


def test_tokens_that_lose_some_of_the_text_are_compared_by_bits_per_token(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, "--tokenizer", "word", "--vocabulary", "12"]
    how = ["compare", "--data", str(tiny.data(tmp_path)), "--models", "ngram", "nnlm", "--out", "c"]
    assert main([*how, *words]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["model", "bits/token", "perplexity"]
    assert "These tokens do not give the text back" in lines[-1]
    rows = json.loads((tmp_path / "c" / "compare.json").read_text())
    for row in rows:
        assert "val_bpc" not in row
        assert row["perplexity"] == pytest.approx(2 ** row["val_bpt"], rel=1e-9)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--heads 3", "heads must divide the width"),
        ("--minutes 0", "minutes must be a finite number above 0"),
        ("--threads 0", "threads must be at least 1"),
        ("--lr -1", "lr must be a positive number"),
        ("--context 3000", "one window of context 3000 needs 3001"),
        ("--context 250", "the validation text has"),
        ("--order 0", "order must be at least 1"),
        ("--experts 3", "--experts is nothing that any of ngram, nnlm, gpt has; leave it out"),
        ("--vocabulary 300", "--vocabulary is nothing that characters have"),
        ("--tf32", "--tf32 is for a GPU"),
    ],
)
def test_a_mistake_about_any_model_is_refused_before_the_first_is_trained(
    tmp_path: Path, flags: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    how = ["compare", "--data", str(tiny.data(tmp_path)), "--models", "ngram", "nnlm", "gpt", "--out", "c"]
    assert main([*how, *WITH_HEADS, *flags.split()]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert says in line
    assert not (tmp_path / "c").exists()


def test_a_flag_about_steps_is_refused_where_all_models_count(tmp_path: Path, refused: Refused) -> None:
    said = refused("compare", "--data", str(tiny.data(tmp_path)), "--models", "ngram", "--lr", "1", "--out", "c")
    assert "--lr is nothing that any of ngram has; leave it out" in said


def test_the_page_has_the_table_and_leads_to_each_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    how = ["compare", "--data", str(tiny.data(tmp_path)), "--models", "ngram", "nnlm", "--out", "c d/e", *TINY]
    (tmp_path / "pages").mkdir()
    assert main([*how, "--html", "pages/compared.html"]) == 0
    read = require_standalone((tmp_path / "pages/compared.html").read_text(encoding="utf-8"))
    said = " ".join(read.said)
    for row in json.loads((tmp_path / "c d/e/compare.json").read_text()):
        assert row["name"] in said
        assert f"{row['val_bpc']:.3f}" in said
    assert read.places == ["../c%20d/e/nnlm/report.html"]
    assert (tmp_path / "pages" / unquote(read.places[0])).is_file()


def test_a_page_is_refused_before_anything_is_trained(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "mine.html").write_text("mine")
    data = str(tiny.data(tmp_path))
    assert "mine.html is there already and is no report" in refused("compare", "--data", data, "--html", "mine.html")
    assert "none is not a folder" in refused("compare", "--data", data, "--html", "none/c.html")
    (tmp_path / "c.svg").write_text("mine")
    assert "c.svg is there already" in refused("compare", "--data", data, "--plot", "c.png")


@pytest.mark.optional
def test_a_plot_is_a_png_and_an_svg(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: ./scripts/test --optional")
    how = ["compare", "--data", str(tiny.data(tmp_path)), "--models", "ngram", "nnlm", "--out", "c", *TINY]
    assert main([*how, "--plot", "mine.png"]) == 0
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "mine.svg").read_text(encoding="utf-8")
