"""What the cases of a version are, in digests: kept for each release, so that the next one can say what has changed.

A case has three parts. What it asks and the exact answers never change under an id but as a correction; how near is
near enough, and under which conventions, may be derived again; the words about it may be written better.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

FOLDER = "scripts/releasing/records"
MEANT = ("operation", "order", "inputs", "keywords", "cotangents", "outputs", "gradients", "taps")
WORDS = ("id", "spec", "section", "about", "erratum")
PARTS = ("meaning", "judgement", "words")


def of(golden: Mapping[str, bytes]) -> dict[str, Any]:
    """The record of a golden folder, whose files are given by their path in it."""
    manifest = json.loads(golden["MANIFEST.json"])
    cases = {}
    for path, record, tensors in records(golden):
        cases[record["id"]] = {"file": path, **_digests(record, tensors)}
    return {
        "format": manifest["format"],
        "spec_version": manifest["spec_version"],
        "C": manifest["calibration"]["C"],
        "cases": cases,
    }


def records(golden: Mapping[str, bytes]) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Each case with its file and the digests of the tensors beside it, in the order of the manifest."""
    for entry in json.loads(golden["MANIFEST.json"])["files"]:
        path = entry["path"]
        if path.endswith(".json"):
            beside = golden.get(path.removesuffix("json") + "safetensors")
            tensors = _tensors(beside) if beside else {}
            for record in json.loads(golden[path])["cases"]:
                yield path, record, tensors


def dumps(record: Mapping[str, Any]) -> bytes:
    """A line a case."""
    head = {name: value for name, value in record.items() if name != "cases"}
    lines = [f"  {json.dumps(name)}: {json.dumps(case)}" for name, case in sorted(record["cases"].items())]
    return (json.dumps(head)[:-1] + ',\n "cases": {\n' + ",\n".join(lines) + "\n }}\n").encode()


def _tensors(content: bytes) -> dict[str, str]:
    """The digest of each tensor of a safetensors file: its dtype, shape and bytes."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    header.pop("__metadata__", None)
    return {
        name: _digest([said["dtype"], said["shape"], hashlib.sha256(data[slice(*said["data_offsets"])]).hexdigest()])
        for name, said in header.items()
    }


def _digests(record: Mapping[str, Any], tensors: Mapping[str, str]) -> dict[str, str]:
    meaning = {name: _without(record[name], "condition") for name in MEANT if name in record}
    judgement = {name: tree for name, tree in record.items() if name not in (*WORDS, *MEANT)}
    judgement |= {name: _only(record[name], "condition") for name in ("outputs", "gradients", "taps") if name in record}
    words = {name: record[name] for name in WORDS if name in record}
    trees = dict(zip(PARTS, (meaning, judgement, words), strict=True))
    return {part: _digest(_resolved(tree, tensors)) for part, tree in trees.items()}


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def _without(tree: Any, left_out: str) -> Any:
    if isinstance(tree, dict):
        return {name: _without(branch, left_out) for name, branch in tree.items() if name != left_out}
    return tree


def _only(truths: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: truth[name] for key, truth in truths.items() if name in truth}


def _resolved(tree: Any, tensors: Mapping[str, str]) -> Any:
    """The tree with the digest of a tensor in the place of its name: a name may change, what it holds may not."""
    if isinstance(tree, dict):
        if set(tree) == {"tensor"}:
            return tensors[tree["tensor"]]
        return {name: _resolved(branch, tensors) for name, branch in tree.items()}
    if isinstance(tree, list):
        return [_resolved(branch, tensors) for branch in tree]
    return tree
