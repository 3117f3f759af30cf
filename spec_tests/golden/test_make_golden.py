"""The golden files: independent of the code they check, repeatable, correctly rounded, complete."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from mpmath import mp, mpf
from safetensors.numpy import load_file

import make_golden
from golden import truth, writer
from golden.case import Case, bfloat16
from golden.corpus import FILES
from refllm.numbers.exact import Exact
from refllm.verify import plain

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "golden"
MANIFEST = json.loads((GOLDEN / "MANIFEST.json").read_text())
JSON_FILES = [entry["path"] for entry in MANIFEST["files"] if entry["path"].endswith(".json")]
COMPUTED: list[Case] = [case for file in FILES if file.level for case in file.cases]
OF_OPERATIONS = [file for file in FILES if file.level == 1]
FAST = [file for file in FILES if file.level in (0, 6) or file.path == "L3/sentence.json"]


def named(id: str) -> Case:
    return next(case for case in COMPUTED if case.id == id)


@functools.cache
def records(path: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((GOLDEN / path).read_text())["cases"]
    return cases


# --- independence -----------------------------------------------------------------------------------------------------


OF_THE_TEXT = (
    "refllm.spec", "refllm.numbers", "refllm.verify.plain", "refllm.verify.edits", "refllm.verify.case",
    "refllm.verify.sized", "refllm.verify.tensors",
)  # fmt: skip


def test_the_generator_names_nothing_of_refllm_but_the_plain_text_and_its_numbers() -> None:
    sources = [
        ROOT / "scripts/make_golden.py",
        ROOT / "scripts/make_sized.py",
        *(ROOT / "scripts/golden").rglob("*.py"),
    ]
    assert len(sources) > 10
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            of_refllm = [name for name in names if name.split(".")[0] == "refllm"]
            assert all(name.startswith((*OF_THE_TEXT, "refllm.parameters")) for name in of_refllm), source


FAST_CODE_REFUSED = """
import sys, types
sys.path.insert(0, "scripts")
import make_golden

def refuse(*_, **__):
    raise SystemExit("the fast code was called")

rooms = ("ops", "blocks", "models", "objectives", "optim", "generation")
for name, module in list(sys.modules.items()):
    if name.startswith(tuple(f"refllm.{room}" for room in rooms)):
        for key, value in list(vars(module).items()):
            if isinstance(value, types.FunctionType) and value.__module__ == name:
                value.__code__ = refuse.__code__.replace(co_freevars=value.__code__.co_freevars)

assert make_golden.main(["--out", sys.argv[1], "--only", "L2/feed_forward", "--jobs", "1"]) == 0
"""


def test_the_generator_calls_nothing_of_the_fast_code(tmp_path: Path) -> None:
    """The golden files check it: they must not come from it."""
    subprocess.run([sys.executable, "-c", FAST_CODE_REFUSED, str(tmp_path)], cwd=ROOT, check=True)
    name = "L2/feed_forward.json"
    assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()


# --- truth ------------------------------------------------------------------------------------------------------------


SMALL = 40  # numbers of a case whose exact arithmetic takes no time


def is_small(case: Case) -> bool:
    given = [*case.inputs.values(), *case.cotangents.values()]
    return sum(np.size(x) for x in given) <= SMALL


@pytest.mark.one_in(30)
@pytest.mark.parametrize("file", OF_OPERATIONS, ids=lambda file: file.path)
def test_the_small_cases_are_regenerated_byte_for_byte(file: Any) -> None:
    text, stored = (GOLDEN / file.path).read_text(), records(file.path)
    assert text == writer.dumps({"format": 1, "level": 1, "cases": stored}) + "\n"  # a record is its bytes
    assert [case.id for case in file.cases] == [record["id"] for record in stored]
    for case, record in zip(file.cases, stored, strict=True):
        if is_small(case):
            made = writer.inline({**truth.record(case), "level": 1})
            assert writer.dumps(made) == writer.dumps(record), f"{case.id} differs: run scripts/make_golden.py"


def test_most_cases_of_the_first_level_are_small() -> None:
    first = [case for file in OF_OPERATIONS for case in file.cases]
    assert sum(map(is_small, first)) > 0.6 * len(first)


@pytest.mark.parametrize("file", FAST, ids=lambda file: file.path)
def test_regeneration_is_byte_identical(file: Any) -> None:
    for path, content in make_golden.contents(file)[0].items():
        assert (GOLDEN / path).read_bytes() == content, f"{path} differs: run scripts/make_golden.py"


@pytest.mark.slow
@pytest.mark.parametrize("file", [file for file in FILES if file not in FAST], ids=lambda file: file.path)
def test_the_other_files_are_regenerated_byte_for_byte(file: Any) -> None:
    test_regeneration_is_byte_identical(file)


def sampled(cases: list[Case], count: int) -> list[Case]:
    """A sample that changes with the corpus and not with the day."""
    chosen = np.random.default_rng(int(hashlib.sha256(str(len(cases)).encode()).hexdigest()[:8], 16))
    return [cases[i] for i in sorted(chosen.choice(len(cases), size=count, replace=False))]


def nearest_double(x: Any) -> float:
    """Found by comparison, not by the conversion that made the files: no neighbour is nearer to x, and of two that are
    as near the last bit is 0. An infinite x is itself."""
    if not mp.isfinite(x):
        return float(x)
    guess = float(x)
    neighbours = [np.nextafter(guess, -np.inf), guess, np.nextafter(guess, np.inf)]
    return float(min(neighbours, key=lambda y: (abs(mpf(float(y)) - x), last_bit(float(y)))))


def last_bit(y: float) -> int:
    return int(y.hex().partition("p")[0][-1], 16) % 2


NUMBERS = [c for c in COMPUTED if c.operation not in truth.LAWS and not c.id.startswith(("ADAMW/trace", "GEN"))]


@pytest.mark.one_in(6)
@pytest.mark.parametrize("case", sampled(NUMBERS, 40), ids=lambda case: case.id)
def test_a_golden_value_is_the_double_nearest_to_the_truth(case: Case) -> None:
    found, stored = truth.answer(case, 600), on_disk(case)
    with mp.workdps(600):
        for part, arrays in (("outputs", found.outputs), ("gradients", found.by_tape)):
            assert arrays.keys() == stored.get(part, {}).keys()
            for name, array in arrays.items():
                if not isinstance(array, Exact):
                    assert np.array_equal(array, stored[part][name]["value"]), (part, name)
                    continue
                for x, y in zip(array.nodes.flat, stored[part][name]["value"].flat, strict=True):
                    expected = nearest_double(x.value) if abs(x.value) > mpf(10) ** -330 else 0.0
                    assert y == expected, (part, name)


PATHS = {case.id: file.path for file in FILES for case in file.cases}


@functools.cache
def tensors(path: str) -> dict[str, np.ndarray]:
    """What stands beside a file. All tests here read it alone."""
    return load_file(GOLDEN / path.replace(".json", ".safetensors"))


def on_disk(case: Case) -> dict[str, Any]:
    path = PATHS[case.id]
    record = next(record for record in records(path) if record["id"] == case.id)
    store = tensors(path) if not path.startswith(("L1", "L7")) else {}

    def arrays(tree: Any) -> Any:
        if "tensor" in tree:
            return store[tree["tensor"]]
        if "data" in tree:
            return np.array([float(x) for x in tree["data"]]).reshape(tree["shape"])
        return {name: arrays(branch) for name, branch in tree.items()}

    return {part: arrays(record[part]) for part in ("inputs", "cotangents", "outputs", "gradients") if part in record}


def test_rounding_is_to_the_nearest_double_even_among_subnormals() -> None:
    with mp.workdps(400):
        least = mpf(2) ** -1074
        assert truth.rounded(least * mpf("0.51"), 1.0, 400) == 5e-324
        assert truth.rounded(least * mpf("0.5"), 1.0, 400) == 0.0  # a tie goes to even
        assert truth.rounded(1 + mpf(2) ** -53, 1.0, 400) == 1.0
        assert truth.rounded(1 + mpf(2) ** -53 + mpf(2) ** -900, 1.0, 400) == 1 + 2**-52
        assert truth.rounded(mpf(10) ** -395, 1.0, 400) == 0.0


@pytest.mark.parametrize("x", [1.0, 1.001, 0.0, 123.4, 9.995e-7, 1e-320])
def test_a_condition_is_rounded_up_to_three_digits(x: float) -> None:
    up = truth.round_up(x)
    assert x <= up <= x * 1.01 + 1e-323
    assert len(re.sub(r"e.*|\.|^0+", "", repr(up)).strip("0")) <= 3


@pytest.mark.parametrize("step", [9, 12])
def test_an_end_of_the_schedule_at_zero_leaves_room_for_the_rounding_of_its_cosine(step: int) -> None:
    y = on_disk(named(f"ADAMW/warmup-cosine-2-of-9-step-{step}-no-floor"))["outputs"]["y"]
    assert y["value"] == 0
    assert y["condition"] > 0.0005


# --- what is asked ----------------------------------------------------------------------------------------------------

OF_BITS = ("narrowed", "widened")  # their inputs are patterns of bits, no numbers
MORE_DIGITS = {"CE/e2-index", "CE/e2-one-hot", "CHAIN/e4", "PPL/e4"}  # they restate printed probabilities


@pytest.mark.one_in(4)
@pytest.mark.parametrize("path", [path for path in JSON_FILES if not path.startswith("L0")])
def test_inputs_and_cotangents_are_exact_in_bfloat16(path: str) -> None:
    for case in next(file for file in FILES if file.path == path).cases:
        stored = on_disk(case)
        for part in ("inputs", "cotangents"):
            for name, array in stored.get(part, {}).items():
                if case.id not in MORE_DIGITS and case.operation not in OF_BITS:
                    np.testing.assert_array_equal(bfloat16(array), array, err_msg=f"{case.id} {part} {name}")


def test_cotangents_are_random_and_outputs_are_not_all_zero() -> None:
    """Otherwise a missing backward pass, or an implementation of zeros, would pass."""
    zeros_are_right = {
        *("ATT-MASK/all-forbidden", "CE/ignore-all", "DROP/all-dropped", "SGD/clip-zero"),
        *("CE/smoothed-ignore-all", "CTR/one-pair", "L2/zero", "ZLOSS/nothing", "ACCUM/nothing"),
        *("PACK/positions-single-tokens", "PACK/positions-no-document", "PAR/data-padding", "PAR/embedding-none"),
    }
    for file in FILES[1:]:
        for case in file.cases:
            stored = on_disk(case)
            for cotangent in stored.get("cotangents", {}).values():
                assert cotangent.size <= 1 or len(np.unique(cotangent)) > 1, case.id
                assert cotangent.any() or not cotangent.size, case.id
            values = [output["value"] for output in stored.get("outputs", {}).values()]
            floor = case.operation == "warmup_cosine" or "one-class" in case.id
            empty = any(not x.size for x in [*stored.get("inputs", {}).values(), *values])
            right = empty or floor or case.id in zeros_are_right
            assert not values or right or any(v.any() for v in values), case.id


SPECS = [
    *("EMB", "PE-SIN", "PE-LRN", "ATT", "ATT-MASK", "MHA", "FFN", "LN", "SMX", "CE", "MSE", "CHAIN", "NLL", "PPL"),
    *("LMHEAD", "SGD", "ADAM", "ADAMW", "DROP", "LONG", "T5-REL", "MOE", "CTR", "L2"),
    *("RNN", "LSTM", "BIRNN", "NNLM", "LSTM-LM", "HYBRID", "XATT", "BERT", "MLM", "CLS", "ENCDEC", "GEN"),
    *("TOPK", "ZLOSS", "GRU", "MINP", "REP", "LION", "MUON", "EMA", "ACCUM", "PAR"),
]


def test_every_formula_of_this_stage_has_cases() -> None:
    asked = Counter(case.spec for case in COMPUTED)
    for spec in SPECS:
        assert asked[spec] >= 3, spec
    assert {case.operation for case in COMPUTED} - plain.operations().keys() == set(truth.LAWS)


def test_every_erratum_with_a_checkable_value_has_a_case() -> None:
    found = {case.erratum for case in COMPUTED} - {None}
    assert found == {"E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "E9", "E12", "E13", "E16"}


ERRATA = [
    ("ATT/e1-one-query", "taps", "scores.0", [18.475208614068026]),
    ("ATT/e1-one-query", "taps", "weights.0", [1.0]),
    ("ATT/e1-one-query", "outputs", "y", [7.0, 8.0, 9.0]),
    ("ATT/e1-three-tokens", "taps", "weights.0", [0.0900305731703805, 0.2447284710547977, 0.6652409557748219]),
    ("CE/e2-index", "outputs", "y", [0.2231435513142098]),
    ("CE/e2-one-hot", "outputs", "y", [0.2231435513142098]),
    ("CHAIN/e4", "outputs", "y", [-3.259697819388456]),
    ("PPL/e4", "outputs", "y", [2.259005009024612]),
]


@pytest.mark.parametrize(("id", "part", "name", "expected"), ERRATA)
def test_an_erratum_has_the_corrected_number(id: str, part: str, name: str, expected: list[float]) -> None:
    case = named(id)
    value = truth.measure(case, {})[0][part][name]["value"]
    np.testing.assert_allclose(value.reshape(-1), expected, rtol=1e-15)


def test_the_first_query_of_e1_has_the_output_of_the_register() -> None:
    case = named("ATT/e1-three-tokens")
    assert truth.measure(case, {})[0]["outputs"]["y"]["value"][0, 0] == pytest.approx(8.575210382604441, rel=1e-15)


def test_the_product_of_e4_is_printed_rightly() -> None:
    case = named("CHAIN/e4")
    assert np.exp(truth.measure(case, {})[0]["outputs"]["y"]["value"]) == pytest.approx(0.0384, rel=1e-15)


def test_the_prefix_of_e8_has_the_rows_of_the_whole() -> None:
    whole, prefix = (on_disk(named(f"LMHEAD/e8-{name}")) for name in ("parallel", "prefix"))
    rows = prefix["outputs"]["logits"]["value"]
    np.testing.assert_array_equal(whole["outputs"]["logits"]["value"][: len(rows)], rows)


def test_in_both_directions_the_first_state_of_e9_depends_on_the_last_word() -> None:
    """And the states of a model that runs forward do not, but for the last."""
    one, other = (
        on_disk(named(f"HYBRID/e9-{name}"))["outputs"]["y"]["value"] for name in ("bidirectional", "later-word")
    )
    assert (one != other).all()
    case = named("HYBRID/logits")
    ids, config = case.keywords["ids"], case.keywords["config"]
    changed = np.concatenate([ids[:, :-1], (ids[:, -1:] + 1) % config["vocabulary"]], axis=1)
    before, after = (
        truth.answer(
            replace(
                case, operation="hybrid_states", keywords={"ids": i, "allowed": None, "config": config}, gradient=False
            ),
            40,
        ).outputs["y"]
        for i in (ids, changed)
    )
    same = (before == after)[0]
    assert same[:-1].all()
    assert not same[-1].any()


@pytest.mark.every
def test_the_classifier_of_e13_predicts_once_a_text_and_as_wide_as_its_labels() -> None:
    case = named("CLS/e13-one-prediction")
    logits = truth.measure(case, {})[0]["taps"]["logits"]["value"]
    assert logits.shape == (len(case.keywords["ids"]), case.keywords["config"]["labels"])
    assert case.printed == {"prediction": [*case.keywords["ids"].shape, case.keywords["config"]["vocabulary"]]}


def test_a_cache_changes_no_answer() -> None:
    pairs = [("GEN/greedy", "-cache"), ("GEN/sampled", "-cache"), ("GEN/lstm", "-state"), ("GEN/translate", "-cache")]
    for name, cache in pairs:
        plain, cached = (on_disk(named(f"{name}{end}")) for end in ("", cache))
        for output in ("ids", "logits"):
            np.testing.assert_array_equal(plain["outputs"][output]["value"], cached["outputs"][output]["value"])


def test_a_row_of_a_batch_is_generated_as_if_it_were_alone() -> None:
    """Of the text, at 40 digits: the files hold the batches."""
    case = named("GEN/batch-sampled-cache")
    batch = truth.answer(case, 40).outputs
    np.testing.assert_array_equal(batch["ids"], on_disk(case)["outputs"]["ids"]["value"])
    for n, (ids, uniforms) in enumerate(zip(case.keywords["ids"], case.keywords["uniforms"], strict=True)):
        one = replace(case, keywords={**case.keywords, "ids": ids, "uniforms": uniforms})
        alone = truth.answer(one, 40).outputs
        np.testing.assert_array_equal(batch["ids"][n], alone["ids"])
        assert (batch["logits"][n] == alone["logits"]).all()


def test_no_sampled_decision_is_near_a_tie() -> None:
    for path in (path for path in JSON_FILES if path.startswith("L5")):
        assert all(record["margin"] >= truth.MARGIN for record in records(path))


# --- the folder -------------------------------------------------------------------------------------------------------


def test_the_manifest_counts_and_hashes_every_file() -> None:
    listed = {entry["path"]: entry for entry in MANIFEST["files"]}
    present = {path.relative_to(GOLDEN).as_posix() for path in GOLDEN.glob("L?/*")}
    assert set(listed) == present
    for path, entry in listed.items():
        content = (GOLDEN / path).read_bytes()
        cases = len(records(path)) if path.endswith(".json") else 0
        assert entry == writer.entry(path, int(path[1]), content, cases)
    assert MANIFEST["cases"] == sum(entry["cases"] for entry in listed.values()) == sum(len(f.cases) for f in FILES)


def test_ids_are_unique() -> None:
    ids = Counter(record["id"] for path in JSON_FILES for record in records(path))
    assert ids.most_common(1)[0][1] == 1


@functools.cache
def schema_of_cases() -> Any:
    schema = json.loads((GOLDEN / "schemas/cases.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.one_in(12)
@pytest.mark.parametrize("path", JSON_FILES)
def test_a_file_obeys_its_schema(path: str) -> None:
    schema_of_cases().validate(json.loads((GOLDEN / path).read_text()))


def test_the_manifest_obeys_its_schema() -> None:
    schema = json.loads((GOLDEN / "schemas/manifest.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(MANIFEST)


@pytest.mark.parametrize("path", [path for path in JSON_FILES if 2 <= int(path[1]) <= 6])
def test_every_tensor_that_a_case_names_is_beside_it_and_no_other(path: str) -> None:
    store = tensors(path)
    named = re.findall(r'"tensor": ?"([^"]+)"', (GOLDEN / path).read_text())
    assert sorted(set(named)) == sorted(store)


def test_the_loader_tensors_read_back_with_their_bits() -> None:
    """By another reader of the format than the writer's own. NumPy knows no bfloat16, so that dtype is left to L0."""
    content = (GOLDEN / "L0/loader.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    data = content[8 + int.from_bytes(content[:8], "little") :]
    for record in records("L0/loader.json"):
        x = record["inputs"]["x"]
        begin, end = header[x["tensor"]]["data_offsets"]
        assert data[begin:end] == b"".join(bytes.fromhex(bits)[::-1] for bits in x["bits"])
        if x["dtype"] != "bfloat16":
            values = np.frombuffer(data[begin:end], x["dtype"]).reshape(x["shape"])
            expected = np.array([float(v) if isinstance(v, str) else v for v in x["data"]], x["dtype"])
            np.testing.assert_array_equal(values, expected.reshape(x["shape"]))


def test_the_folder_is_small() -> None:
    """It is copied into other people's repositories."""
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 6_000_000
