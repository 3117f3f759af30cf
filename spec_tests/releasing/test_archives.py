"""Archives: read by everybody's readers, with given modes, owners and dates, and nothing else."""

from __future__ import annotations

import io
import tarfile
import zipfile

from hypothesis import given
from hypothesis import strategies as st

from releasing.archives import FIXED, Entry, entries, tar_gz, zipped

PATHS = st.text("abcXYZ019-_.é", min_size=1, max_size=150).filter(lambda path: path.strip(".") != "")
FILES = st.dictionaries(PATHS, st.binary(max_size=2000), max_size=6)
MOMENTS = st.integers(FIXED, 2_100_000_000)


@given(FILES, MOMENTS)
def test_a_tar_holds_what_it_was_given(files: dict[str, bytes], moment: int) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_gz(entries(files, "folder/"), moment)), mode="r:gz") as held:
        members = held.getmembers()
        contents = {member.name: (held.extractfile(member) or io.BytesIO()).read() for member in members}
    assert contents == {f"folder/{path}": content for path, content in files.items()}
    assert {(member.uid, member.gid, member.uname, member.gname, member.mode) for member in members} <= {
        (0, 0, "", "", 0o644)
    }
    assert {member.mtime for member in members} <= {moment}
    assert [member.name for member in members] == sorted(contents)


@given(FILES, MOMENTS)
def test_a_zip_holds_what_it_was_given(files: dict[str, bytes], moment: int) -> None:
    with zipfile.ZipFile(io.BytesIO(zipped(entries(files), moment))) as held:
        assert held.testzip() is None
        assert {name: held.read(name) for name in held.namelist()} == files
        assert {info.external_attr >> 16 for info in held.infolist()} <= {0o100644}
        assert held.namelist() == sorted(files)


def test_what_can_be_run_stays_so() -> None:
    files = [Entry("run", b"#!", True), Entry("read", b"")]
    with tarfile.open(fileobj=io.BytesIO(tar_gz(files))) as tar:
        assert [member.mode for member in tar.getmembers()] == [0o755, 0o644]
    with zipfile.ZipFile(io.BytesIO(zipped(files))) as held:
        assert [info.external_attr >> 16 for info in held.infolist()] == [0o100755, 0o100644]
        assert held.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
