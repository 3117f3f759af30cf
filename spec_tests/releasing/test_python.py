"""The wheel and the archive of the sources, built by scripts/release in an environment of its own."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from refllm import __version__
from spec_tests.releasing import ROOT
from spec_tests.releasing.test_command import git
from spec_tests.test_distribution import tracked

pytestmark = pytest.mark.network
MOMENT = 1_767_323_045  # of the commit below


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two, of two clones in two folders, by two hash seeds, time zones and umasks; the environment is made once."""
    folder = tmp_path_factory.mktemp("wheel")
    one, other = folder / "one clone", folder / "deep/in/another"
    for path in tracked():
        (one / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, one / path)
    git(one, "init", "--quiet")
    git(one, "add", ".")
    git(one, "commit", "--quiet", "--message", "All")
    git(folder, "clone", "--quiet", str(one), str(other))
    for clone, changed in ((one, {"PYTHONHASHSEED": "1"}), (other, {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"})):
        settings = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SOURCE_DATE_EPOCH")
        }
        done = subprocess.run(
            [sys.executable, "scripts/release", "--out", str(folder / "out" / clone.name)],
            cwd=clone, env={**settings, **changed}, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if clone == one:
            (other / ".venv-release").symlink_to(one / ".venv-release")
            (other / ".git/info").mkdir(exist_ok=True)
            (other / ".git/info/exclude").write_text(".venv-release\n")
    return folder / "out" / one.name, folder / "out" / other.name


def test_another_clone_makes_the_same_bytes(releases: tuple[Path, Path]) -> None:
    first, second = ({p.relative_to(o): p.read_bytes() for p in o.rglob("*") if p.is_file()} for o in releases)
    assert first == second
    assert {Path(f"refllm-{__version__}.tar.gz"), Path(f"refllm-{__version__}-py3-none-any.whl")} <= set(first)


def test_the_archive_holds_the_checkout_with_one_date_and_no_owner(releases: tuple[Path, Path]) -> None:
    with tarfile.open(releases[0] / f"refllm-{__version__}.tar.gz") as held:
        members = held.getmembers()
        contents = {m.name.partition("/")[2]: (held.extractfile(m) or io.BytesIO()).read() for m in members}
    assert {path: contents.get(path) == (ROOT / path).read_bytes() for path in tracked()} == dict.fromkeys(
        tracked(), True
    )
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", MOMENT)}
    runs = {m.name.partition("/")[2] for m in members if m.mode == 0o755}
    assert runs == {path for path in tracked() if (ROOT / path).stat().st_mode & stat.S_IXUSR}


def test_the_wheel_is_as_its_record_says_and_holds_what_is_declared(releases: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(releases[0] / f"refllm-{__version__}-py3-none-any.whl") as held:
        names = held.namelist()
        contents = {name: held.read(name) for name in names}
    assert names[-1].endswith(".dist-info/RECORD")
    for name, digest, size in csv.reader(io.StringIO(contents[names[-1]].decode())):
        if name != names[-1]:
            found = base64.urlsafe_b64encode(hashlib.sha256(contents[name]).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={found}", len(contents[name]))
    data = f"refllm-{__version__}.data/data/share/refllm/"
    golden = {name.removeprefix(data): contents[name] for name in names if name.startswith(data + "golden/")}
    assert golden == {path: (ROOT / path).read_bytes() for path in tracked() if path.startswith("golden/")}
    package = {name for name in names if name.startswith("refllm/")}
    assert package == {path for path in tracked() if path.startswith("refllm/")}
