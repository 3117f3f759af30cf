"""The files of golden/sized: for each operation its cases in JSON, and their truth beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from golden.sized import corpus, truth
from refllm.verify.sized.cases import case_of
from refllm.verify.tensors import from_safetensors, to_safetensors

FROZEN = Path(__file__).with_name("frozen.json")
Kept = dict[str, tuple[dict[str, Any], truth.Rows]]
MEANT = ("operation", "order", "seed", "inputs", "keywords", "cotangents")


def contents(
    operation: str, *, kept: Kept | None = None, slow: bool = True
) -> tuple[dict[str, bytes], int, dict[str, str]]:
    """The two files of an operation, how many cases they hold, and what the cases mean.

    What is kept, and is asked as it was, is not computed again. Without `slow` a slow case is there if it is kept.
    """
    records, found = list[dict[str, Any]](), list[truth.Rows]()
    for asked in corpus.cases(operation):
        held = (kept or {}).get(asked.id)
        if held is None and asked.slow and not slow:
            continue
        record = asked.record()
        again = held is None or held[0] != record
        records.append(record)
        found.append(truth.rows(case_of(record, record["id"])) if again or held is None else held[1])
    files = {
        f"{operation}.json": (dumps({"format": 1, "cases": records}) + "\n").encode(),
        f"{operation}.safetensors": to_safetensors(truth.tables(found)),
    }
    return files, len(records), {r["id"]: digest(r, rows) for r, rows in zip(records, found, strict=True)}


def kept(folder: Path, operation: str) -> Kept:
    """The cases that a folder holds, with the rows of their truth."""
    path = folder / f"{operation}.json"
    if not path.is_file():
        return {}
    stored = from_safetensors(path.with_suffix(".safetensors").read_bytes(), operation)
    found, row = Kept(), 0
    for record in json.loads(path.read_text())["cases"]:
        count = len(record["outputs"]) + (len(record["inputs"]) if "cotangents" in record else 0)
        found[record["id"]] = record, {part: list(x[row : row + count]) for part, (_, x) in stored.items()}
        row += count
    return found


def dumps(record: dict[str, Any]) -> str:
    """A case a block, a part of it a line, without spaces."""
    cases = []
    for case in record["cases"]:
        lines = [f"{json.dumps(name)}:{json.dumps(part, separators=(',', ':'))}" for name, part in case.items()]
        cases.append("{\n" + ",\n".join(lines) + "\n}")
    return '{\n"format":1,\n"cases":[\n' + ",\n".join(cases) + "\n]\n}"


def digest(record: dict[str, Any], rows: truth.Rows) -> str:
    """What a case means: what is asked, and the values that are right; not how near is near enough."""
    asked = json.dumps({name: record[name] for name in MEANT if name in record}, sort_keys=True).encode()
    values = np.array(rows["values"], "<f8").tobytes() + np.array(rows["sums"], "<f8").tobytes()
    return hashlib.sha256(asked + values).hexdigest()[:16]


def frozen() -> dict[str, str]:
    known: dict[str, str] = json.loads(FROZEN.read_text()) if FROZEN.is_file() else {}
    return known


def freeze(digests: dict[str, str]) -> None:
    """What is new is added. What is known stays as it is."""
    FROZEN.write_text(json.dumps({**digests, **frozen()}, indent=0, sort_keys=True) + "\n")


def manifest(entries: dict[str, dict[str, Any]]) -> bytes:
    lines = ",\n".join(f"  {json.dumps({'path': path, **entries[path]})}" for path in sorted(entries))
    count = sum(entry["cases"] for entry in entries.values())
    return f'{{\n "format": 1,\n "cases": {count},\n "files": [\n{lines}\n ]\n}}\n'.encode()


def entry(content: bytes, cases: int) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "cases": cases}
