"""What a case means never changes under its id: a digest of every case, in a file that only grows.

The digest covers what is asked and what is right (operation, order, inputs, keywords, cotangents, exact values), not
how near is near enough: a condition may be derived again, and a sentence about the case may be written better.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from golden.writer import number

FILE = Path(__file__).with_name("frozen.json")
MEANT = ("operation", "order", "inputs", "keywords", "cotangents", "outputs", "gradients", "taps")

Digests = dict[str, str]


def digests(records: list[dict[str, Any]], store: Mapping[str, np.ndarray]) -> Digests:
    """The digest of every record of a file, and of every alternative, whose name is `id under convention=value`."""
    found = {}
    for record in records:
        found[record["id"]] = _digest({part: record[part] for part in MEANT if part in record}, store)
        for key, answers in record.get("alternatives", {}).items():
            found[f"{record['id']} under {key}"] = _digest(answers, store)
    return found


def _digest(tree: Any, store: Mapping[str, np.ndarray]) -> str:
    return hashlib.sha256(json.dumps(_canonical(tree, store), sort_keys=True).encode()).hexdigest()[:16]


def _canonical(tree: Any, store: Mapping[str, np.ndarray]) -> Any:
    """The tree without conditions, the same whether its tensors are arrays, lists of numbers or names of a store."""
    if isinstance(tree, np.ndarray):
        return [str(tree.dtype), list(tree.shape), _bits(tree)]
    if isinstance(tree, dict):
        if set(tree) == {"tensor"}:
            return _canonical(store[tree["tensor"]], store)
        if "dtype" in tree:
            return _inline(tree)
        return {name: _canonical(branch, store) for name, branch in tree.items() if name != "condition"}
    if isinstance(tree, list):
        return [_canonical(branch, store) for branch in tree]
    return number(tree)


def _inline(tree: Mapping[str, Any]) -> Any:
    if "bits" in tree:  # L0, whose dtypes NumPy does not all have
        return [tree["dtype"], tree["shape"], tree["bits"]]
    array = np.array([float(x) if isinstance(x, str) else x for x in tree["data"]], tree["dtype"])
    return _canonical(array.reshape(tree["shape"]), {})


def _bits(array: np.ndarray) -> str:
    array = np.where(np.isnan(array), np.nan, array) if array.dtype.kind == "f" else array  # every NaN is one NaN
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


def read() -> Digests:
    known: Digests = json.loads(FILE.read_text()) if FILE.is_file() else {}
    return known


def changed(found: Digests, known: Digests) -> list[str]:
    """The names whose contents are other than those that were frozen."""
    return [name for name, digest in found.items() if known.get(name, digest) != digest]


def append(found: Digests) -> None:
    """Freezes what is new. What is known stays as it is, and so does its place in the file."""
    FILE.write_text(json.dumps({**found, **read()}, indent=0, sort_keys=True) + "\n")
