"""Laws of `refllm runs`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from refllm.cli import main
from spec_tests.commands.conftest import Refused
from spec_tests.tiny import contents, file_of

Captured = pytest.CaptureFixture[str]


def listed(capfd: Captured, *words: str) -> list[str]:
    capfd.readouterr()
    assert main(["runs", *words]) == 0
    return capfd.readouterr().out.splitlines()


def test_a_run_is_a_line_with_its_figures(run: Path, capfd: Captured) -> None:
    summary = json.loads((run / "summary.json").read_text())
    head, line = listed(capfd, str(run.parent))
    assert head.split() == ["run", "model", "steps", "loss", "bits/char", "when", "size", "state"]
    assert str(run) in line
    assert f"{summary['val_loss']:.3f}" in line
    assert f"{summary['val_bpc']:.3f}" in line
    assert line.endswith("complete")
    assert listed(capfd, str(run))[1] == line  # a run itself
    [row] = json.loads("\n".join(listed(capfd, str(run), "--json")))
    assert row["steps"] == summary["steps"] == 6
    assert row["bytes"] == sum(map(len, contents(run).values()))


def test_runs_are_sorted_as_people_count_and_found_in_folders(run: Path, tmp_path: Path, capfd: Captured) -> None:
    for name in ("runs/10", "runs/9", "runs/compared/gpt", "runs/ein Lauf"):
        shutil.copytree(run, tmp_path / name)
    (tmp_path / "runs/compared/compare.json").write_text("[]")
    (tmp_path / "runs/notes").mkdir()
    found = [line.split("  ")[0] for line in listed(capfd)[1:]]
    assert found == ["runs/9", "runs/10", "runs/compared/gpt", "runs/ein Lauf"]


def test_a_run_that_is_damaged_is_said_and_the_others_are_listed(run: Path, tmp_path: Path, capfd: Captured) -> None:
    for name in ("whole", "state", "weights", "short", "nothing"):
        shutil.copytree(run, tmp_path / "runs" / name)
    (tmp_path / "runs/state/checkpoint/state.json").write_text("{")
    file_of(tmp_path / "runs/weights/checkpoint", "weights").unlink()
    file_of(tmp_path / "runs/short/checkpoint", "moment1").write_bytes(b"x")
    shutil.rmtree(tmp_path / "runs/nothing/checkpoint")
    head, whole, blank, *broken = listed(capfd)
    assert (head[:3], whole[:10], blank) == ("run", "runs/whole", "")
    assert sorted(line.partition(": ")[0] for line in broken) == [
        "runs/nothing", "runs/short", "runs/state", "runs/weights",
    ]  # fmt: skip
    assert all(
        reason in " ".join(broken) for reason in ("no checkpoint", "cut short", "cannot be read", "No such file")
    )


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json"])
@pytest.mark.parametrize("data", [b"", b"\xff", b"[1", b'{"steps": 6, "val_loss": "x", "val_bpc": null}\n', b"null\n"])
def test_figures_that_are_damaged_are_left_out(run: Path, name: str, data: bytes, capfd: Captured) -> None:
    (run / name).write_bytes(data)
    [_, line] = listed(capfd, str(run))
    assert line.split()[1] == "gpt"


def test_a_run_that_goes_on_shows_its_last_report(run: Path, capfd: Captured) -> None:
    (run / "summary.json").unlink()
    [_, line] = listed(capfd, str(run))
    assert line.endswith("unfinished")
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"{last['val_bpc']:.3f}" in line


def test_a_run_before_its_first_save_is_said(tmp_path: Path, capfd: Captured) -> None:
    (tmp_path / "runs/001").mkdir(parents=True)
    (tmp_path / "runs/001/refllm.lock").write_text("{}")
    assert listed(capfd) == [
        "runs/001: nothing is saved yet: it is training, or was ended before the first save"
    ]  # fmt: skip


def test_a_folder_without_runs_is_refused(tmp_path: Path, refused: Refused) -> None:
    assert "runs does not exist; name a folder with runs, or make one by refllm train" in refused("runs")
    (tmp_path / "empty").mkdir()
    assert "there is no run in empty" in refused("runs", "empty")
    (tmp_path / "file").write_text("x")
    assert "file is not a folder" in refused("runs", "file")


def test_names_stay_in_their_line(run: Path, tmp_path: Path, capfd: Captured) -> None:
    shutil.copytree(run, tmp_path / "runs/a\nb\x1b[31m")
    assert len(listed(capfd)) == 2
