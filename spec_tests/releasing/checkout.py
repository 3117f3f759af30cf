"""The files of this checkout that the packages of the golden files are made of, committed or not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from releasing import record, versions
from releasing.sources import Sources
from spec_tests.releasing import ROOT

MOMENT = 1_700_000_000
NEEDED = ("golden", "scripts/releasing")
ALONE = ("pyproject.toml", "refllm/__init__.py")


def paths(root: Path = ROOT) -> list[str]:
    inside = (path for folder in NEEDED for path in (root / folder).rglob("*"))
    found = [path.relative_to(root).as_posix() for path in inside if path.is_file() and "__pycache__" not in path.parts]
    return sorted([*found, *ALONE])


def few(*files: str) -> Sources:
    """The same with a few of the golden files, and no release before."""
    given = sources()
    manifest = json.loads(given.files[versions.MANIFEST])
    dropped = {f"golden/{entry['path']}" for entry in manifest["files"]}
    kept = {p: content for p, content in given.files.items() if p not in dropped and not p.startswith(record.FOLDER)}
    manifest["files"] = [entry for entry in manifest["files"] if entry["path"] in files]
    manifest["cases"] = sum(entry["cases"] for entry in manifest["files"])
    kept |= {f"golden/{path}": given.files[f"golden/{path}"] for path in files}
    return replace(given, files={**kept, versions.MANIFEST: json.dumps(manifest).encode()})


def sources(root: Path = ROOT, moment: int = MOMENT) -> Sources:
    return Sources({path: (root / path).read_bytes() for path in paths(root)}, frozenset(), moment)
