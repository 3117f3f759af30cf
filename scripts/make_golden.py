"""Make golden/: the truth for every case, from the plain text (refllm/spec) on exact numbers (refllm/numbers).

    python scripts/make_golden.py                 write the files and MANIFEST.json into golden/
    python scripts/make_golden.py --only L1/      only the files whose path starts so (the manifest keeps the others)
    python scripts/make_golden.py --check         write nothing; exit 1 if a file differs from what would be written

What a case means never changes under its id: a file that would change one is not written, and the exit status is 1.
Give the new contents a new id. New cases are added to scripts/golden/frozen.json.

Needs mpmath and numpy. The result is the same, byte for byte, on every machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from libraries import require

require(__doc__, "numpy", "mpmath")

import numpy as np

from golden import frozen, loader, writer
from golden.case import File
from golden.corpus import FILES
from golden.truth import record

GOLDEN = ROOT / "golden"
INLINE = (1, 7)  # levels whose tensors are so small that they stand in the JSON file
CALIBRATION = 8  # the factor C of the tolerance, until the calibration writes a measured one


def contents(file: File) -> tuple[dict[str, bytes], frozen.Digests]:
    """The files that hold these cases, path -> bytes, and the digests of the cases: JSON, and beside it the
    tensors of the levels with larger ones."""
    head = {"format": 1, "level": file.level}
    if file.level == 0:
        files = loader.contents(file.path, head, file.cases)
        return files, frozen.digests(json.loads(files[file.path])["cases"], {})
    records = [{**record(case), "level": file.level} for case in file.cases]
    cases, store = [], dict[str, np.ndarray]()
    for found in records:
        cases.append(writer.inline(found) if file.level in INLINE else writer.beside(found, store))
    files = {file.path: (writer.dumps({**head, "cases": cases}) + "\n").encode()}
    if store:
        files[str(Path(file.path).with_suffix(".safetensors"))] = writer.safetensors(store)
    return files, frozen.digests(records, {})


def made(files: list[File], jobs: int) -> Iterator[tuple[dict[str, bytes], frozen.Digests]]:
    """The contents of every file, in order, by several processes if asked."""
    if jobs == 1:
        yield from map(contents, files)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap(_by_path, [file.path for file in files])


def _by_path(path: str) -> tuple[dict[str, bytes], frozen.Digests]:
    return contents(next(file for file in FILES if file.path == path))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the golden files.")
    parser.add_argument("--out", type=Path, default=GOLDEN, help="folder to write (default: golden/)")
    parser.add_argument("--only", default="", metavar="PREFIX", help="only files whose path starts with PREFIX")
    parser.add_argument("--check", action="store_true", help="compare with the folder and write nothing")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes (default: up to 2)")
    chosen = parser.parse_args(arguments)
    files = [file for file in FILES if file.path.startswith(chosen.only)]
    if not files:
        parser.error(
            f"no file starts with {chosen.only!r}; the first is {FILES[0].path}. "
            "Which there are says OPERATIONS of scripts/golden/corpus.py"
        )
    entries = _entries(chosen.out / "MANIFEST.json")
    stale, known = [], frozen.read()
    for file, (produced, digests) in zip(files, made(files, chosen.jobs), strict=True):
        if other := frozen.changed(digests, known):
            print(f"{file.path}: the contents of {', '.join(other)} have changed; give what is new a new id")
            return 1
        if not chosen.check and chosen.out.resolve() == GOLDEN:
            frozen.append(digests)
        for path, content in produced.items():
            count = len(file.cases) if path == file.path else 0
            entries[path] = writer.entry(path, file.level, content, count)
            if chosen.check:
                on_disk = chosen.out / path
                stale += [path] if not on_disk.is_file() or on_disk.read_bytes() != content else []
            else:
                writer.write(chosen.out / path, content)
                print(f"{path}: {len(content)} bytes, {count} cases", flush=True)
    if chosen.check:
        print("\n".join(f"{path} differs; run scripts/make_golden.py" for path in stale) or "all files are up to date")
        return 1 if stale else 0
    ordered = [entries[path] for path in sorted(entries)]
    writer.write(chosen.out / "MANIFEST.json", writer.manifest(ordered, _calibration(chosen.out / "MANIFEST.json")))
    return 0


def _entries(manifest: Path) -> dict[str, dict[str, Any]]:
    """What the manifest already lists, so that making one file does not forget the others."""
    if not manifest.is_file():
        return {}
    known = {path for file in FILES for path in (file.path, str(Path(file.path).with_suffix(".safetensors")))}
    return {entry["path"]: entry for entry in json.loads(manifest.read_text())["files"] if entry["path"] in known}


def _calibration(manifest: Path) -> float:
    """The factor that the manifest holds: it is measured, not made here."""
    return json.loads(manifest.read_text())["calibration"]["C"] if manifest.is_file() else CALIBRATION


if __name__ == "__main__":
    sys.exit(main())
