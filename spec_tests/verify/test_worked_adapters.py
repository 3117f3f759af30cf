"""The adapters that a newcomer copies: right in every case they serve, in every precision they name."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import refllm
from refllm.verify import adapter, corpus, diagnosis, noise, runner, search
from refllm.verify.case import Response
from refllm.verify.isolated import Isolated
from refllm.verify.laws.swallowed import swallowed
from refllm.verify.laws.trial import Base, Trial

ROOT = Path(refllm.__file__).resolve().parents[1]
ADAPTERS = {"torch": ROOT / "scripts/adapters/torch_adapter.py", "jax": ROOT / "scripts/adapters/jax_adapter.py"}

# pytorch/pytorch#187806: GELU as 1 + erf, which has no digits left of a small tail
FAULTS = {"torch": {"FFN/gelu-erf-tail", "FFN/gelu-erf-tail-rows"}}


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("framework", ["torch", pytest.param("jax", marks=pytest.mark.slow)])  # jax compiles each case
def test_a_framework_passes_every_case_that_its_adapter_serves(
    golden: corpus.Corpus, framework: str, dtype: str
) -> None:
    pytest.importorskip(framework)
    implementation = adapter.from_file(ADAPTERS[framework])
    results = list(runner.run(implementation, golden.cases.values(), dtype, golden.C))
    failures = {r.case.id: r.reason or [v.message for v in r.verdicts if v.wrong] for r in results if r.failed}
    lost = set() if dtype == "bfloat16" else FAULTS.get(framework, set())  # z of e^(-z²) has no digits for a tail there
    assert set(failures) == lost, failures
    assert sum(r.status == "pass" for r in results) > 150


@pytest.mark.oracle
@pytest.mark.parametrize("framework", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_nan_comes_out_of_every_operation_of_an_adapter(golden: corpus.Corpus, framework: str) -> None:
    """A run tries this law last, and its time may be over before. Of each operation one case that has rows."""
    pytest.importorskip(framework)
    implementation = adapter.from_file(ADAPTERS[framework])
    chosen: dict[str, Trial] = {}
    for case in golden.cases.values():
        has_rows = all(min(x.shape, default=2) > 1 for x in case.inputs.values())
        if has_rows and case.operation in implementation.operations and case.operation not in chosen:
            base = Base(runner.Result(case, "pass", ""), Response({}, {}), "float32", golden.C, 0, declares=False)
            chosen.update((case.operation, trial) for trial in swallowed(base))
    said = {name: t.judge(runner.respond(implementation, t.case, "float32")) for name, t in chosen.items()}
    assert {name: law.message for name, law in said.items() if law is not None and law.broken} == {}
    assert len(said) > 20


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_example_of_the_documentation_works_as_it_stands(golden: corpus.Corpus, tmp_path: Path, dtype: str) -> None:
    pytest.importorskip("torch")
    page = (ROOT / "docs/conformance.md").read_text(encoding="utf-8")
    [code] = [c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def layer_norm" in c]
    (tmp_path / "my_adapter.py").write_text(code)
    cases = [case for case in golden.cases.values() if case.operation == "layer_norm"]
    results = list(runner.run(adapter.from_file(tmp_path / "my_adapter.py"), cases, dtype, golden.C))
    assert {r.status for r in results} == {"pass"}


@pytest.mark.parametrize("framework", ADAPTERS)
def test_a_worked_adapter_takes_few_lines_for_an_operation(golden: corpus.Corpus, framework: str) -> None:
    text = ADAPTERS[framework].read_text(encoding="utf-8")
    operations = {case.operation for case in golden.cases.values()}
    served = [name for name in operations if re.search(rf"^(\w+, )*{name}(, \w+)* = ", text, re.MULTILINE)]
    assert len(served) > 25
    assert len(text.splitlines()) <= 10 * len(served)


# divided by the norm plus 1e-6
CLIPPED = {"SGD/clip-above", "SGD/clip-one-large", "SGD/clip-exact", "SGD/clip-tiny-norm"}
NOTHING = {"SMX/softmax-nothing-left", "CE/ignore-all", "CE/no-rows", "CE/smoothed-ignore-all", "CTR/zero-row"}  # NaN
LIBRARIES = {  # adapter: what must be installed, its operations put to the test, faults of the library, other choices
    "scipy": ("scipy", {"softmax", "log_softmax", "gelu_erf", "silu", "cross_entropy"}, set(), NOTHING),
    "sklearn": ("sklearn", {"softmax", "relu", "tanh", "cross_entropy", "sgd"}, {"CE/far-target"}, NOTHING),
    "optax": ("optax", {"adam", "adamw", "sgd", "clip_by_global_norm"}, set(), set()),
    "jax_nn": ("jax", {"silu", "gelu_erf", "relu"}, set(), set()),
    "onnx": (
        "onnx", {"softmax", "log_softmax", "cross_entropy", "rnn", "layer_norm", "adam"},
        {"SMX/log-softmax-far-apart", "CE/far-target", "RNN/padding"}, NOTHING,
    ),
    "torch_modules": (
        "torch", {"attention", "self_attention", "lstm", "adamw", "sgd", "cross_entropy", "clip_by_global_norm"},
        set(), NOTHING | CLIPPED,
    ),
    "tinygrad": ("tinygrad", {"tanh", "multiply"}, {"RNN/tanh-near"}, set()),
    "torch_parallel": (
        "torch",
        {
            "column_parallel_linear", "row_parallel_linear", "parallel_feed_forward", "head_parallel_attention",
            "vocabulary_parallel_embedding", "sequence_parallel_norm", "pipeline_stage", "data_parallel_cross_entropy",
            "sharded_squares", "sharded_clip", "sharded_adamw", "cross_entropy",
        },
        set(), NOTHING,
    ),
}  # fmt: skip
PARALLEL = ROOT / "scripts/adapters/torch_parallel_layers.py"
MISUSED = {  # what people leave to the default, or write: the case that shows it
    "scale_grads=False": ("scale_grads=True", "PAR/stage-first"),
    "(y * ranks).backward": ("y.backward", "PAR/data-last"),
    '"bias": b * (rank == 0)': ('"bias": b', "PAR/row-last"),
    "(ranks * model(": ("(model(", "PAR/adamw-last"),
    "ColwiseParallel(use_local_output=False)": ("ColwiseParallel()", "PAR/feed-forward-uneven"),
    "cut(x * (rank == 0), Replicate())": ("cut(x, Replicate())", "PAR/squares-last"),
}


@pytest.mark.oracle
@pytest.mark.slow  # five processes import PyTorch
def test_what_parallel_layers_are_misused_for_fails_a_case(golden: corpus.Corpus, tmp_path: Path) -> None:
    """All at once, in copies of the files: each case that fails has one reason."""
    pytest.importorskip("torch")
    text = PARALLEL.read_text(encoding="utf-8")
    for right, (wrong, _) in MISUSED.items():
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    for file in (PARALLEL.with_name("torch_adapter.py"), PARALLEL.with_name("torch_parallel_adapter.py")):
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / PARALLEL.name).write_text(text, encoding="utf-8")
    wanted = {case for _, case in MISUSED.values()} | {"PAR/column-last", "PAR/embedding-last"}
    with Isolated(tmp_path / "torch_parallel_adapter.py", 300.0) as implementation:
        results = list(runner.run(implementation, [golden.cases[case] for case in wanted], "float64", golden.C))
    assert {r.case.id for r in results if r.failed} == {case for _, case in MISUSED.values()}


@pytest.mark.oracle
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "torch_parallel" else n for n in LIBRARIES]
)
def test_an_adapter_of_a_library_shows_its_faults_and_no_other(golden: corpus.Corpus, name: str) -> None:
    """In float32. A dtype and a convention that differ are no faults, nor is a form of Adam that it documents."""
    needed, operations, faults, choices = LIBRARIES[name]
    pytest.importorskip(needed)
    cases = [case for case in golden.cases.values() if case.operation in operations]
    with Isolated(ROOT / "scripts/adapters" / f"{name}_adapter.py", 300.0) as implementation:
        results = list(runner.run(implementation, cases, "float32", golden.C))
    failed = {r.case.id for r in results if r.wrong and not (name == "onnx" and r.case.operation == "adam")}
    known = {case.id for case in cases}
    assert faults & known <= failed
    assert failed <= faults | choices
    assert all(
        any(r.status in ("pass", "value", "dtype") for r in results if r.case.operation == o) for o in operations
    )


SINGLE = "as far as"  # of float32, in float64
FOUND = [  # adapter, dtype, case, its status, what the first line of the diagnosis says
    ("flax", "float32", "LN/large-mean", "fail", "E[x²] - E[x]²"),
    ("flax", "float32", "ATT-MASK/all-forbidden", "convention", "empty_row=mean,"),
    ("flax", "float32", "MHA/causal-left-padding", "convention", "empty_row=mean,"),
    ("keras", "float64", "FFN/linear-rows", "fail", SINGLE),
    ("keras", "float64", "CE/mean", "dtype", ""),
    ("keras", "float64", "MHA/two-heads", "fail", SINGLE),
    ("jax_nn", "float64", "ATT/square", "fail", SINGLE),
    ("transformers", "float64", "ATT-MASK/all-forbidden", "convention", "empty_row=nan,"),
    ("transformers", "float64", "ATT-MASK/forbidden-row", "fail", "empty_row=nan as far as float32"),
    ("transformers", "float32", "ATT-MASK/forbidden-row", "convention", "empty_row=mean-added,"),
    ("transformers", "float64", "CE/smoothed-batch", "fail", SINGLE),
    ("transformers", "float64", "CE/mean", "fail", SINGLE),
    ("transformers", "float32", "ADAMW/warmup-cosine-4-of-16-step-17", "fail", "rises again after the last step"),
    ("torch_modules", "float32", "XATT/nothing-to-read", "convention", "matches the convention empty_row=nan"),
    ("torch_modules", "float32", "MHA/causal-left-padding", "pass", ""),
    ("tinygrad", "float32", "CE/ignore-uneven-batch", "fail", ""),
]


def needs(name: str) -> None:
    """Skips without it. Keras is not imported here: it would look for a backend that its adapter does not ask for."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}")


def explained_in_full(results: list[runner.Result], dtype: str, C: float) -> Iterator[runner.Result]:
    """As the command does it."""
    found = search.explained(results, dtype, search.SECONDS)
    left = [r for r in results if r.case.operation not in found]
    return diagnosis.diagnosed(results, dtype, found=found, lost=noise.recognised(left, dtype, C))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["flax", "keras", "jax_nn", "transformers", "torch_modules", "tinygrad"])
def test_the_faults_of_released_libraries_are_reported_and_named(golden: corpus.Corpus, name: str) -> None:
    """With all cases of the operation: what explains one answer must not contradict the others."""
    needs({"jax_nn": "jax", "torch_modules": "torch"}.get(name, name))
    with Isolated(ROOT / "scripts/adapters" / f"{name}_adapter.py", 300.0) as implementation:
        for dtype in ("float64", "float32"):
            wanted = {case: rest for adapter_name, d, case, *rest in FOUND if (adapter_name, d) == (name, dtype)}
            operations = {golden.cases[case].operation for case in wanted}
            cases = [case for case in golden.cases.values() if case.operation in operations]
            results = list(runner.run(implementation, cases, dtype, golden.C))
            explained = {r.case.id: r for r in explained_in_full(results, dtype, golden.C)}
            for case, (status, said) in wanted.items():
                result = explained[case]
                assert (result.status, said in next(iter(result.diagnosis), "")) == (status, True), result.diagnosis


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["flax", "keras", "transformers"])
def test_a_released_library_shows_no_other_faults_in_float32(golden: corpus.Corpus, name: str) -> None:
    """A convention is no fault; a GELU as 1 + erf is one, and so are angles in float32. Keras' gradient of attention
    counts every value of a row without a key in full: PyTorch's fused kernel forms the probabilities again as
    exp(s - L), where s, the least number of float32, has swallowed the logarithm."""
    needs(name)
    known = {
        "flax": {"LN/large-mean"},
        "keras": {"ATT-MASK/causal-longer-queries", "ATT-MASK/all-forbidden", "MHA/causal-left-padding", "CE/no-rows"}
        | FAULTS["torch"],
        "transformers": FAULTS["torch"],
    }[name]
    with Isolated(ROOT / "scripts/adapters" / f"{name}_adapter.py", 300.0) as implementation:
        results = list(runner.run(implementation, golden.cases.values(), "float32", golden.C))
    failed = {r.case.id for r in results if r.failed and r.status != "convention"}
    failed -= {c for c in failed if c.startswith(("LONG/rotary-halves", "ADAMW/warmup-cosine"))}
    assert failed == known
    assert sum(r.status == "pass" for r in results) > 50
