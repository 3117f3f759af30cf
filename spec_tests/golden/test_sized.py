"""The sized files are what scripts/make_sized.py writes, mean what they meant, and their truth is the exact one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpmath import mp

from golden.sized import corpus, files, truth, vectors
from refllm.numbers import exact
from refllm.verify.sized.cases import case_of, load
from refllm.verify.sized.probes import probes, signs

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
SIZED = GOLDEN / "sized"
MANIFEST = json.loads((SIZED / "MANIFEST.json").read_text())
KNOWN = load(GOLDEN)
FAST = ("relu", "softmax", "rms_norm", "gate", "top_experts", "dropout", "gelu_tanh", "clip_by_global_norm")


def test_the_manifest_lists_every_file_with_its_digest() -> None:
    listed = {entry["path"]: entry for entry in MANIFEST["files"]}
    assert {path.name for path in SIZED.iterdir()} - {"MANIFEST.json"} == set(listed)
    for name, entry in listed.items():
        content = (SIZED / name).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert MANIFEST["cases"] == len(KNOWN)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("operation", list(corpus.operations()))
def test_what_is_asked_is_what_the_generator_of_cases_says(operation: str) -> None:
    asked = [case.record() for case in corpus.cases(operation) if not case.slow]
    held = [r for r in json.loads((SIZED / f"{operation}.json").read_text())["cases"] if not r.get("slow")]
    assert held == asked


def test_every_file_obeys_the_schema() -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = json.loads((GOLDEN / "schemas/sized.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for operation in corpus.operations():
        jsonschema.Draft202012Validator(schema).validate(json.loads((SIZED / f"{operation}.json").read_text()))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("operation", FAST)
def test_the_files_are_made_again_as_they_are(operation: str) -> None:
    made, _, _ = files.contents(operation, kept={}, slow=False)
    assert {name: (SIZED / name).read_bytes() for name in made} == made


@pytest.mark.slow
@pytest.mark.parametrize(
    "operation", [name for name in corpus.operations() if name not in FAST and name != "attention"]
)
def test_all_files_are_made_again_as_they_are(operation: str) -> None:
    test_the_files_are_made_again_as_they_are(operation)


def test_the_vectors_of_the_generator_are_made_again_as_they_are() -> None:
    assert (SIZED / "generator.json").read_bytes() == vectors.content()


def test_no_case_has_changed_under_its_id_and_every_one_is_frozen() -> None:
    found = {}
    for operation in corpus.operations():
        for record in json.loads((SIZED / f"{operation}.json").read_text())["cases"]:
            held = KNOWN[record["id"]].known.values()
            found[record["id"]] = files.digest(
                record, truth.Rows(values=[k.values for k in held], sums=[k.sum for k in held])
            )
    assert found == files.frozen()


# --- the truth, by numbers of another kind ----------------------------------------------------------------------------


def _exact(record: dict[str, Any]) -> dict[str, Any]:
    """The text on exact numbers: for cases that they can reach."""
    sized = case_of(record, "a case")
    with exact.digits(320), np.errstate(all="ignore"):
        found = truth.found(sized.case(), exact)
        return {key: x.values() if isinstance(x, exact.Exact) else np.asarray(x) for key, x in found.items()}


@pytest.mark.one_in(8)
@pytest.mark.parametrize("id", [
    "SMX/kernel-softmax-7x33-peaked", "LN/kernel-layer-norm-7x31-normal", "T5-REL/kernel-rms-norm-33x33-offset",
    "LMHEAD/kernel-matmul-5x32x32-normal", "FFN/kernel-gelu-erf-1025-normal", "ADAMW/kernel-adamw-33-wide-step-2",
    "LONG/kernel-rotary-halves-1x7x256-at-131071", "CE/kernel-cross-entropy-5x31-normal-mean",
    "SGD/kernel-clip-by-global-norm-129-normal",
])  # fmt: skip
def test_the_stored_probes_are_the_exact_values_rounded_once(id: str) -> None:
    sized = KNOWN[id]
    record = next(r for r in json.loads((SIZED / f"{sized.operation}.json").read_text())["cases"] if r["id"] == id)
    for key, values in _exact(record).items():
        place = probes(values.shape, sized.seed, key)
        expected = [float(x) for x in values.reshape(-1)[place]]
        np.testing.assert_array_equal(sized.known[key].values, expected, err_msg=key)
        with mp.workdps(60):
            total = mp.fsum(int(s) * x for s, x in zip(signs(values.size, sized.seed, key), values.flat, strict=True))
            assert abs(sized.known[key].sum - float(total)) <= 1e-13 * (1 + abs(float(total)))
