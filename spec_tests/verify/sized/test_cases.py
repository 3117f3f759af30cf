"""The sized cases: what they must hold, and that nothing wrong with their files gets through."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refllm.verify import corpus
from refllm.verify.sized import cases
from refllm.verify.tensors import MalformedError

GOLDEN = corpus.folder(None)


@pytest.fixture(scope="module")
def known() -> dict[str, cases.SizedCase]:
    return cases.load(GOLDEN)


def test_there_are_cases_for_every_operation_that_kernels_have(known: dict[str, cases.SizedCase]) -> None:
    operations = {case.operation for case in known.values()}
    assert operations >= {
        "matmul", "linear", "softmax", "log_softmax", "cross_entropy", "smoothed_cross_entropy", "layer_norm",
        "rms_norm", "relu", "gelu_erf", "gelu_tanh", "silu", "attention", "packed_attention", "relative_attention",
        "grouped_attention", "repeat_heads", "rotary_halves", "rotary_interleaved", "embedding", "dropout",
        "gated_feed_forward", "gate", "dispatch", "combine", "top_experts", "lstm", "adamw", "clip_by_global_norm",
    }  # fmt: skip
    assert 250 <= len(known) <= 400
    assert not set(known) & set(corpus.load(GOLDEN).cases)


@pytest.mark.parametrize("tile", [32, 64, 128, 1024])
def test_rows_are_below_at_and_above_the_multiples_of_a_tile(known: dict[str, cases.SizedCase], tile: int) -> None:
    for operation in ("softmax", "layer_norm"):
        widths = {c.outputs["y"][-1] for c in known.values() if c.operation == operation}
        for more in (-1, 0, 1):
            assert any(n >= tile - 1 and (n - more) % tile == 0 for n in widths), (operation, tile, more)


def test_the_shapes_are_those_at_which_kernels_break(known: dict[str, cases.SizedCase]) -> None:
    def shapes(operation: str, name: str) -> list[tuple[int, ...]]:
        held = [case for case in known.values() if case.operation == operation]
        return [tuple(case.inputs[name]["shape"]) for case in held]

    attention = shapes("attention", "q")
    assert {40, 64, 80, 96, 128, 256} <= {q[-1] for q in attention}
    assert {2049, 8193} <= {q[-2] for q in attention}
    assert any(q[-2] == 1 for q in attention)
    assert any(0 in q for q in attention)
    assert {np.prod(q[:-2]) % 2 for q in attention} == {0, 1}
    assert max(x[-1] for x in shapes("matmul", "x")) == 16384
    assert {32000, 50257, 128256} <= {x[-1] for x in shapes("cross_entropy", "logits")}
    assert {(1,), (3,), (1023,), (1000001,)} <= set(shapes("adamw", "p"))
    grouped = [case.keywords for case in known.values() if case.operation == "grouped_attention"]
    assert {1, 7, 8} <= {each["heads"] // each["kv_heads"] for each in grouped}
    profiles = {recipe["profile"] for case in known.values() for recipe in case.inputs.values()}
    assert profiles >= {"normal", "positive", "peaked", "offset", "wide", "outlier", "subnormal", "masked"}


def test_another_seed_makes_a_case_of_the_same_shapes(known: dict[str, cases.SizedCase]) -> None:
    sized = known["LN/kernel-layer-norm-3x1025-normal"]
    own, other = sized.case(), sized.case(seed=1)
    assert own.inputs["x"].shape == other.inputs["x"].shape
    assert (own.inputs["x"] != other.inputs["x"]).any()
    np.testing.assert_array_equal(own.inputs["x"], sized.case().inputs["x"])


def _golden(tmp_path: Path, change: Callable[[dict[str, Any]], Any], name: str = "relu.json") -> Path:
    """A golden folder with one file of sized cases, changed, and a manifest that knows it."""
    root = tmp_path / "sized"
    root.mkdir()
    files = []
    for path in ("relu.json", "relu.safetensors"):
        shutil.copy(GOLDEN / "sized" / path, root)
    record = json.loads((root / name).read_text()) if name.endswith("json") else {}
    if (found := change(record)) is not None:
        record = found
    if name.endswith("json"):
        (root / name).write_text(json.dumps(record))
    for path in ("relu.json", "relu.safetensors"):
        content = (root / path).read_bytes()
        count = len(record["cases"]) if path.endswith("json") and isinstance(record.get("cases"), list) else 5
        files.append({
            "path": path, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
            "cases": (count or 5) if path.endswith("json") else 0,
        })  # fmt: skip
    (root / "MANIFEST.json").write_text(json.dumps({"format": 1, "files": files}))
    return tmp_path


def _first(**parts: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record["cases"][0].update(parts)


def _input(**parts: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record["cases"][0]["inputs"]["x"].update(parts)


def test_an_unchanged_file_is_read(tmp_path: Path) -> None:
    assert len(cases.load(_golden(tmp_path, lambda record: None))) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_first(seed=-1), "seed must be a whole number"), (_first(seed="1"), "seed must be a whole number"),
        (_first(id="relu"), "is no id of a case"), (_first(operation=""), "must be an object with the texts"),
        (_first(order=["y"]), "order must name each input once"), (_first(level=7), "level must be 1 or 2"),
        (_first(outputs={}), "needs outputs"), (_first(inputs=[]), "inputs must be an object"),
        (_first(keywords={"a": [1]}), "no number, text or recipe"), (_first(conventions={"a": 1}), "must be texts"),
        (_input(profile="gauss"), "is no profile"), (_input(profile="bits", chance=1), "makes no floating-point"),
        (_input(shape=[-1]), "shape must be a list"), (_input(shape=[1 << 40]), "elements are more than"),
        (_first(outputs={"y": {"shape": [3]}}), "cotangents of their names and shapes"),
        (_input(exponent=0.5), "must be a whole number"), (_input(exponent=5000), "exponent between"),
        (_input(mean=3), "normal needs nothing more and may have exponent"),
        (lambda record: record["cases"].append(record["cases"][0]), "fewer rows than the cases have|is there twice"),
        (lambda record: record["cases"].pop() and None, "holds 10 rows, the cases have 8 tensors"),
        (lambda record: {"format": 2, "cases": []}, "must say format 1"),
        (lambda record: {"format": 1, "cases": 7}, "must say format 1"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    with pytest.raises(MalformedError, match=message) as raised:
        cases.load(_golden(tmp_path, change))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_cut_short_or_changed_is_refused(tmp_path: Path) -> None:
    golden = _golden(tmp_path, lambda record: None)
    path = golden / "sized" / "relu.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(MalformedError, match="its contents are not those of"):
        cases.load(golden)


def test_a_folder_without_sized_cases_says_so(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="no such file"):
        cases.load(tmp_path)
