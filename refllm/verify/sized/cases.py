"""The sized cases of golden/sized, read with suspicion: whatever is wrong with them is one clear line (UserError).

sized = load(corpus.folder(None))             every SizedCase by id
case = sized["LN/kernel-layer-norm-3x1025-normal"].case()
                                              an ordinary Case, whose tensors exist as long as it does
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case, Truth
from refllm.verify.sized import profiles
from refllm.verify.sized.probes import COUNT
from refllm.verify.sized.recipes import require_recipe, shape_of
from refllm.verify.tensors import MalformedError, from_safetensors, parse_json, read_file

FOLDER, MANIFEST = "sized", "MANIFEST.json"
_LARGEST = 1 << 24  # bytes of a file
_NAME = re.compile(r"[a-z0-9_]+\.(json|safetensors)")
_ID = re.compile(r"[A-Z0-9-]+/[a-z0-9-]+")
_TEXTS = ("id", "spec", "operation", "about")
_PARTS = ("values", "deviations", "sums", "sum_deviations", "not_finite")


@dataclass(frozen=True)
class Known:
    """What is stored of the truth of a tensor: its probes (refllm.verify.sized.probes), and the sum of all its elements
    with the signs of the generator. Deviations are those of float64, in units of its roundoff."""

    values: Array
    deviations: Array
    sum: float
    sum_deviation: float
    not_finite: tuple[int, int, int]  # elements that are NaN, ∞, -∞; the sum is over the others


@dataclass(frozen=True)
class SizedCase:
    """One case. `inputs`, `keywords` and `cotangents` are recipes (refllm.verify.sized.profiles)."""

    id: str
    spec: str
    operation: str
    level: int
    about: str
    seed: int
    slow: bool
    order: tuple[str, ...]
    inputs: Mapping[str, Any]
    keywords: Mapping[str, Any]
    cotangents: Mapping[str, Any]
    outputs: Mapping[str, tuple[int, ...]]  # shapes
    conventions: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, Known] = field(default_factory=dict, repr=False)  # by "outputs.y", "gradients.x"

    @property
    def gradients(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the gradients: those of the inputs, if any are asked for."""
        return {name: shape_of(recipe) for name, recipe in self.inputs.items()} if self.cotangents else {}

    def case(self, seed: int | None = None) -> Case:
        """The case with its tensors, which are made here; with another seed, a case of the same shapes.

        Its outputs and gradients have their shapes alone: the truth is asked of `evaluate` or of `known`.
        """
        chosen = self.seed if seed is None else seed
        made = functools.partial(self._made, chosen)
        keywords = {name: made("keywords", name) if _is_recipe(x) else x for name, x in self.keywords.items()}
        inputs, cotangents = ({n: made(group, n) for n in getattr(self, group)} for group in ("inputs", "cotangents"))
        return self._case(chosen, inputs, keywords, cotangents)

    def without_tensors(self) -> Case:
        """The case as a report needs it."""
        plain = {name: x for name, x in self.keywords.items() if not _is_recipe(x)}
        return self._case(self.seed, {}, plain, {})

    def _made(self, seed: int, group: str, name: str) -> Array:
        return profiles.made(getattr(self, group)[name], seed, f"{group}.{name}")

    def _case(
        self, seed: int, inputs: dict[str, Array], keywords: dict[str, Any], cotangents: dict[str, Array]
    ) -> Case:
        groups = ("inputs", "keywords", "cotangents")
        recipes = {f"{g}.{n}": x for g in groups for n, x in getattr(self, g).items() if _is_recipe(x)}
        outputs, gradients = ({n: _of_shape(s) for n, s in held.items()} for held in (self.outputs, self.gradients))
        return Case(
            self.id, self.spec, self.operation, self.operation, self.level, self.about, self.order, inputs, keywords,
            cotangents, outputs, gradients, conventions=dict(self.conventions), seed=seed, recipes=recipes,
        )  # fmt: skip


def _is_recipe(x: Any) -> bool:
    return isinstance(x, dict)


def _of_shape(shape: tuple[int, ...]) -> Truth:
    """A truth of which the shape is known, and which takes no memory."""
    return Truth(numpy.broadcast_to(numpy.zeros(()), shape), None)


# --- the files --------------------------------------------------------------------------------------------------------


def load(golden: Path) -> dict[str, SizedCase]:
    """Every sized case of a golden folder, by id. UserError unless its files are whole and as their manifest says."""
    root = golden / FOLDER
    found: dict[str, SizedCase] = {}
    for name, entry in _listed(root).items():
        if name.endswith(".json") and entry["cases"]:
            for case in _of_file(root, name, entry["cases"]):
                if case.id in found:
                    raise MalformedError(f"{FOLDER}/{name}: the case {case.id} is there twice")
                found[case.id] = case
    return found


def _listed(root: Path) -> dict[str, dict[str, Any]]:
    """The files that the manifest lists, each of the size and with the contents that it says."""
    where = f"{FOLDER}/{MANIFEST}"
    manifest = parse_json(read_file(root / MANIFEST, _LARGEST), where)
    files = manifest.get("files")
    if manifest.get("format") != 1 or not isinstance(files, list):
        raise MalformedError(f"{where}: must say format 1 and list files; get the golden files again")
    listed = {}
    for entry in files:
        path = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str) or not _NAME.fullmatch(path) or type(entry.get("cases")) is not int:
            raise MalformedError(f"{where}: {path!r:.60} is no file with a number of cases; one is matmul.json")
        content = read_file(root / path, _LARGEST)
        if hashlib.sha256(content).hexdigest() != entry.get("sha256"):
            raise MalformedError(f"{FOLDER}/{path}: its contents are not those of {where} (sha256); get them again")
        listed[path] = entry
    return listed


def _of_file(root: Path, name: str, count: int) -> Iterator[SizedCase]:
    where = f"{FOLDER}/{name}"
    record = parse_json(read_file(root / name, _LARGEST), where)
    cases, beside = record.get("cases"), root / name.replace(".json", ".safetensors")
    if record.get("format") != 1 or not isinstance(cases, list) or len(cases) != count:
        raise MalformedError(f"{where}: must say format 1 and hold {count} cases, as {MANIFEST} says")
    stored = from_safetensors(read_file(beside, _LARGEST), f"{FOLDER}/{beside.name}")
    table = {part: stored[part][1] for part in _PARTS if part in stored}
    rows = len(table.get("sums", ()))
    wanted = {part: {"values": (rows, COUNT), "deviations": (rows, COUNT), "not_finite": (rows, 3)}.get(part, (rows,))
              for part in _PARTS}  # fmt: skip
    if {part: x.shape for part, x in table.items()} != wanted:
        raise MalformedError(f"{FOLDER}/{beside.name}: must hold {', '.join(_PARTS)}, a row a tensor")
    row = 0
    for number, said in enumerate(cases):
        case = case_of(said, f"{where}, case {number}")
        names = [f"outputs.{n}" for n in case.outputs] + [f"gradients.{n}" for n in case.gradients]
        if row + len(names) > rows:
            raise MalformedError(f"{FOLDER}/{beside.name}: holds fewer rows than the cases have tensors")
        case.known.update({n: _known(table, row + k) for k, n in enumerate(names)})  # type: ignore[attr-defined]
        row += len(names)
        yield case
    if row != rows:
        raise MalformedError(f"{FOLDER}/{beside.name}: holds {rows} rows, the cases have {row} tensors")


def _known(table: Mapping[str, Array], row: int) -> Known:
    counts = tuple(int(n) for n in table["not_finite"][row])
    return Known(
        table["values"][row], table["deviations"][row].astype(float), float(table["sums"][row]),
        float(table["sum_deviations"][row]), counts,  # type: ignore[arg-type]
    )  # fmt: skip


def case_of(said: Any, where: str) -> SizedCase:
    if not isinstance(said, dict) or not all(isinstance(said.get(name), str) and said[name] for name in _TEXTS):
        raise MalformedError(f"{where}: must be an object with the texts {', '.join(_TEXTS)}")
    if not _ID.fullmatch(said["id"]):
        raise MalformedError(f"{where}: {said['id']!r:.80} is no id of a case")
    where = f"{where.partition(',')[0]}, {said['id']}"
    if type(said.get("seed")) is not int or not 0 <= said["seed"] < 1 << 64:
        raise MalformedError(f"{where}: seed must be a whole number from 0 to 2^64 - 1, is {said.get('seed')!r:.40}")
    if said.get("level") not in (1, 2):
        raise MalformedError(f"{where}: level must be 1 or 2, is {said.get('level')!r:.20}")
    groups = {name: _object(said, name, where) for name in ("inputs", "keywords", "cotangents", "outputs")}
    for group in ("inputs", "keywords", "cotangents"):
        for name, recipe in groups[group].items():
            if group != "keywords" or _is_recipe(recipe):
                require_recipe(recipe, f"{where}, {group}.{name}", floats=group != "keywords")
            elif isinstance(recipe, list):
                raise MalformedError(f"{where}, keywords.{name}: no number, text or recipe")
    outputs = {name: shape_of(x, f"{where}, outputs.{name}") for name, x in groups["outputs"].items()}
    if not outputs or (groups["cotangents"] and {n: shape_of(x) for n, x in groups["cotangents"].items()} != outputs):
        raise MalformedError(f"{where}: needs outputs, and cotangents of their names and shapes or none")
    order, conventions = said.get("order"), said.get("conventions", {})
    first = {name.partition(".")[0] for name in groups["inputs"]}
    if not isinstance(order, list) or not all(isinstance(n, str) for n in order) or sorted(order) != sorted(first):
        raise MalformedError(f"{where}: order must name each input once: {', '.join(sorted(first)) or 'none'}")
    if not isinstance(conventions, dict) or not all(isinstance(x, str) for x in conventions.values()):
        raise MalformedError(f"{where}: conventions must be texts")
    return SizedCase(
        **{name: said[name] for name in _TEXTS}, level=said["level"], seed=said["seed"], slow=said.get("slow") is True,
        order=tuple(order), inputs=groups["inputs"], keywords=groups["keywords"], cotangents=groups["cotangents"],
        outputs=outputs, conventions=conventions, known={},
    )  # fmt: skip


def _object(said: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    value = said.get(name, {})
    if not isinstance(value, dict):
        raise MalformedError(f"{where}: {name} must be an object, is {type(value).__name__}")
    return value
