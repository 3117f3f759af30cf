"""The archive of the sources and the wheel, built by setuptools and packed again so that their bytes stay the same.

setuptools writes dates, owners and modes of the files that it was given, and its packer is the zlib of the Python that
runs it. The contents are left as they are.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from refllm.errors import UserError
from releasing.archives import Entry, tar_gz, zipped
from releasing.sources import EPOCH, Sources

_BUILD = """
import sys
from setuptools import build_meta
built = getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2])
print("built", built)
"""


def made(sources: Sources) -> dict[str, bytes]:
    """The wheel is built from the archive of the sources, which therefore holds all that it needs."""
    with tempfile.TemporaryDirectory(prefix="refllm-release-") as place:
        folder = Path(place)
        _write(sources, folder / "checkout")
        archive = _built("sdist", folder / "checkout", folder, sources.moment)
        with tarfile.open(archive) as held:
            held.extractall(folder / "sources", filter="data")
        (unpacked,) = (folder / "sources").iterdir()
        wheel = _built("wheel", unpacked, folder, sources.moment)
        return {
            archive.name: _archive_again(archive.read_bytes(), sources.moment),
            wheel.name: _wheel_again(wheel.read_bytes(), sources.moment),
        }


def _write(sources: Sources, folder: Path) -> None:
    for path, content in sources.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755 if path in sources.executable else 0o644)


def _built(kind: str, source: Path, out: Path, moment: int) -> Path:
    """What setuptools builds, in a process of its own, since it takes the current folder for the project."""
    settings = {**os.environ, EPOCH: str(moment), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    settings.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, kind, str(out)],
        cwd=source,
        env=settings,
        capture_output=True,
        text=True,
        check=False,
    )
    names = [line.removeprefix("built ") for line in done.stdout.splitlines() if line.startswith("built ")]
    if done.returncode or not names:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise UserError(f"setuptools could not build the {kind}: {said[-1].strip()}")
    return out / names[-1]


def _archive_again(content: bytes, moment: int) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as held:
        found = []
        for member in held.getmembers():
            with contextlib.suppress(AttributeError):  # a folder has no contents, and needs no entry
                found.append(Entry(member.name, held.extractfile(member).read(), bool(member.mode & 0o100)))  # type: ignore[union-attr]
    return tar_gz(sorted(found, key=lambda entry: entry.path), moment)


def _wheel_again(content: bytes, moment: int) -> bytes:
    """The description of the wheel stands at its end, RECORD last, as PEP 427 recommends."""
    with zipfile.ZipFile(io.BytesIO(content)) as held:
        found = [Entry(name, held.read(name)) for name in held.namelist() if not name.endswith("/")]
    described = {
        entry.path: (".dist-info/" in entry.path, entry.path.endswith("/RECORD"), entry.path) for entry in found
    }
    return zipped(sorted(found, key=lambda entry: described[entry.path]), moment)
