"""The golden files, read with suspicion: whatever is wrong with them is one clear line (UserError), never a crash.

corpus = load(folder(None))                  every Case of every level (see refllm.verify.case for Case and Truth)
corpus.cases["ATT/square"].inputs["q"]       by id, in the order of the manifest
corpus.C                                     the calibrated factor of the tolerance
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refllm.errors import UserError
from refllm.verify import notes
from refllm.verify.case import Case
from refllm.verify.material import beside_the_package
from refllm.verify.records import Reader
from refllm.verify.tensors import MalformedError, from_safetensors, parse_json, read_file

MANIFEST = "MANIFEST.json"
_PATH = re.compile(r"L[0-7]/[a-z0-9_]+\.(json|safetensors)")
_LARGEST = 1 << 26  # bytes of the manifest, or of a file that it names


@dataclass(frozen=True)
class Corpus:
    """All cases by id, in the order of the manifest, and the factor of the tolerance."""

    folder: Path
    spec_version: str
    C: float
    cases: dict[str, Case]


def folder(chosen: str | None) -> Path:
    """The golden folder: the one chosen, the checkout's, or the one that was installed with the package."""
    if chosen is not None:
        if not (Path(chosen) / MANIFEST).is_file():
            raise UserError(f"--golden {chosen}: there is no {MANIFEST} in it; give the folder of the golden files")
        return Path(chosen)
    manifest = beside_the_package("golden", MANIFEST)
    if manifest is not None:
        return manifest.parent
    raise UserError("the golden files are neither beside the package nor installed with it; give --golden DIR")


def load(root: Path) -> Corpus:
    """Every case of the folder. UserError unless each file is there, whole, and as the manifest says."""
    manifest = parse_json(read_file(root / MANIFEST, _LARGEST), MANIFEST)
    entries, total, factor = _entries(manifest)
    contents = {entry["path"]: _content(root, entry) for entry in entries}
    cases: dict[str, Case] = {}
    for entry in entries:
        path = entry["path"]
        if not path.endswith(".json"):
            continue
        beside = path.removesuffix(".json") + ".safetensors"
        tensors = from_safetensors(contents[beside], beside) if beside in contents else {}
        records = _records(parse_json(contents[path], path), entry)
        for number, record in enumerate(records):
            case = Reader(path, number, tensors).case(record, entry["level"])
            if case.id in cases:
                raise MalformedError(f"{path}: the case {case.id} is there twice")
            cases[case.id] = case
    notes.read(root)  # what is wrong with them is said before anything runs, not in the report
    if len(cases) != total:
        raise MalformedError(f"{MANIFEST}: says {total} cases, the files hold {len(cases)}; get the golden files again")
    return Corpus(root, manifest["spec_version"], factor, cases)


def remembered(root: Path) -> Corpus:
    """The same, read anew only after a file of the folder has changed: `check` asks for it at each call."""
    files = sorted([root / MANIFEST, *root.glob("L*/*")])
    return _remembered(root, tuple((path, at.st_mtime_ns, at.st_size) for path in files for at in [path.stat()]))


@functools.lru_cache(maxsize=1)
def _remembered(root: Path, _as_it_is: tuple[Any, ...]) -> Corpus:
    return load(root)


def _entries(manifest: dict[str, Any]) -> tuple[list[dict[str, Any]], int, float]:
    """The list of files, the number of cases and C, each of the right kind."""
    if manifest.get("format") != 1:
        raise MalformedError(f"{MANIFEST}: format {manifest.get('format')!r:.20} is not 1, the one this version reads")
    if not isinstance(manifest.get("spec_version"), str):
        raise MalformedError(f"{MANIFEST}: spec_version must be a string")
    entries, total = manifest.get("files"), manifest.get("cases")
    if not isinstance(entries, list) or not entries:
        raise MalformedError(f"{MANIFEST}: files must be a list of at least one file")
    if type(total) is not int or total < 1:
        raise MalformedError(f"{MANIFEST}: cases must be a number of at least 1, is {total!r:.20}")
    calibration = manifest.get("calibration")
    factor = calibration.get("C") if isinstance(calibration, dict) else None
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
        raise MalformedError(f"{MANIFEST}: calibration.C must be a positive number, is {factor!r:.20}")
    seen = set()
    for entry in entries:
        _check_entry(entry)
        if entry["path"] in seen:
            raise MalformedError(f"{MANIFEST}: lists {entry['path']} twice")
        seen.add(entry["path"])
    for entry in entries:
        if entry["path"].endswith(".safetensors") and entry["path"].removesuffix("safetensors") + "json" not in seen:
            raise MalformedError(f"{MANIFEST}: lists {entry['path']} without the .json file it belongs to")
    listed = sum(entry["cases"] for entry in entries)
    if listed != total:
        raise MalformedError(f"{MANIFEST}: says {total} cases, its files add up to {listed}")
    return entries, total, float(factor)


def _check_entry(entry: Any) -> None:
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise MalformedError(f"{MANIFEST}: {path!r:.80} is no path of a golden file; one is L1/attention.json")
    for name in ("level", "bytes", "cases"):
        if type(entry.get(name)) is not int or entry[name] < 0:
            raise MalformedError(f"{MANIFEST}: {path}: {name} must be a whole number, is {entry.get(name)!r:.20}")
    if not isinstance(entry.get("sha256"), str) or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise MalformedError(f"{MANIFEST}: {path}: sha256 must be 64 hexadecimal digits")
    if path[1] != str(entry["level"]):
        raise MalformedError(f"{MANIFEST}: {path} says level {entry['level']}")
    if (entry["cases"] == 0) != path.endswith(".safetensors"):
        raise MalformedError(f"{MANIFEST}: {path}: {entry['cases']} cases; .json holds some, .safetensors none")


def _content(root: Path, entry: dict[str, Any]) -> bytes:
    """The bytes of a file that the manifest names; a link may not lead out of the folder."""
    path = root / entry["path"]
    if not path.resolve().is_relative_to(root.resolve()):
        raise MalformedError(f"{entry['path']}: leads out of the golden folder; it must be a file in it")
    if not path.is_file():
        raise MalformedError(f"{entry['path']}: listed in {MANIFEST} but not there; get the golden files again")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise MalformedError(f"{entry['path']}: {size} bytes, {MANIFEST} says {entry['bytes']}; get the files again")
    content = read_file(path, _LARGEST)
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise MalformedError(f"{entry['path']}: its contents are not those of {MANIFEST} (sha256); get them again")
    return content


def _records(file: dict[str, Any], entry: dict[str, Any]) -> list[Any]:
    path = entry["path"]
    if file.get("format") != 1 or file.get("level") != entry["level"]:
        raise MalformedError(f"{path}: must say format 1 and level {entry['level']}")
    records = file.get("cases")
    if not isinstance(records, list) or len(records) != entry["cases"]:
        held = f"{len(records)} cases" if isinstance(records, list) else "no list of cases"
        raise MalformedError(f"{path}: holds {held}, {MANIFEST} says {entry['cases']}")
    return records
