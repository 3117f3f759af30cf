"""scripts/release itself: the same bytes from another clone, and one line for what it cannot do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from releasing import __main__ as release
from releasing import record, versions
from spec_tests.releasing import ROOT, checkout

pytestmark = pytest.mark.every  # packages are made, which takes long
FIXED = {"GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z"}
FEW = checkout.few("L1/softmax.json", "L2/feed_forward.json", "L2/feed_forward.safetensors")
NOBODY = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *NOBODY, *words], cwd=folder, env={**os.environ, **FIXED}, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with a few golden files, and with what makes packages of them."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "a clone"
    files = {**FEW.files, "refllm/errors.py": (ROOT / "refllm/errors.py").read_bytes()}
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "All")
    return folder


def called(clone: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(clone / "scripts"), str(clone)])
    plain = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    return subprocess.run(
        [sys.executable, "-B", "-m", "releasing", *words], cwd=clone, env={**plain, "PYTHONPATH": path, **settings},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("release: ")
    return line


@pytest.mark.slow
def test_another_clone_makes_the_same_bytes(clone: Path, tmp_path: Path) -> None:
    """In another folder, at another hour, under other settings."""
    other = tmp_path / "elsewhere" / "the other"
    git(tmp_path, "clone", "--quiet", str(clone), str(other))
    outs = tmp_path / "one", tmp_path / "two"
    settings = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    for folder, out, changed in zip((clone, other), outs, ({"PYTHONHASHSEED": "0"}, settings), strict=True):
        done = called(folder, "--out", str(out), "--vectors", **changed)
        assert (done.returncode, done.stderr) == (0, "")
    first, second = ({p.relative_to(o): p.read_bytes() for p in o.rglob("*") if p.is_file()} for o in outs)
    assert first == second
    assert len(first) > 20


def test_what_is_not_committed_is_not_released(clone: Path, tmp_path: Path) -> None:
    (clone / "golden/README.md").write_text("another")
    assert "golden/README.md is not committed (1 such files)" in refused(called(clone, "--out", str(tmp_path / "out")))
    git(clone, "checkout", "--quiet", "golden/README.md")
    (clone / "golden/stray").touch()
    assert "golden/stray is not committed" in refused(called(clone, "--out", str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    assert "not an empty folder" in refused(called(clone, "--out", str(tmp_path / "out"), "--vectors"))
    assert "not an empty folder" in refused(called(clone, "--out", str(tmp_path / "out/mine"), "--vectors"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_empty_folder_is_taken_and_nothing_else_is_left(clone: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/out"
    out.mkdir(parents=True)
    assert called(clone, "--out", str(out), "--vectors").returncode == 0
    assert (out / "SHA256SUMS").is_file()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_what_is_no_checkout_is_refused(clone: Path, tmp_path: Path) -> None:
    shutil.rmtree(clone / ".git")
    assert "clone the project" in refused(called(clone, "--out", str(tmp_path / "out")))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("said", ["yesterday", "-1", "1e9", ""])
def test_a_date_that_is_none_is_refused(clone: Path, tmp_path: Path, said: str) -> None:
    line = refused(called(clone, "--out", str(tmp_path / "out"), "--vectors", SOURCE_DATE_EPOCH=said))
    assert "SOURCE_DATE_EPOCH" in line


def test_a_link_is_not_released(clone: Path, tmp_path: Path) -> None:
    (clone / "link").symlink_to("golden")
    git(clone, "add", "link")
    git(clone, "commit", "--quiet", "--message", "A link")
    assert "link is no plain file" in refused(called(clone, "--out", str(tmp_path / "out")))


def test_a_record_is_kept_once(clone: Path) -> None:
    said = versions.of(FEW).specification
    done = called(clone, "--record")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{record.FOLDER}/{said}.json: commit it\n"
    kept = (clone / record.FOLDER / f"{said}.json").read_bytes()
    assert kept == record.dumps(record.of(FEW.under("golden")))
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "--message", "Released")
    assert called(clone, "--record").returncode == 0  # the same again


@pytest.mark.parametrize("words", [[], ["--vectors"], ["--record", "--out", "x"], ["--record", "--vectors"]])
def test_what_is_asked_for_must_be_clear(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        release.main(words)
    assert ended.value.code == 2
    assert "--out DIR" in capsys.readouterr().err
