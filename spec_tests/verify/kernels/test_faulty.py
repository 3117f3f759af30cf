"""Twenty-four kernels of strangers, each with one fault: every one fails, and the report says what it is or where."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from pathlib import Path

import pytest

from refllm.numbers import plans
from refllm.verify import corpus
from refllm.verify.adapter import Functions
from refllm.verify.explanation import Explanation
from refllm.verify.runner import Result
from refllm.verify.sized import cases, judge
from refllm.verify.sized.recognised import Recognised
from refllm.verify.sized.work import work

FOLDER = Path(__file__).parent / "faulty"
KNOWN = sorted(cases.load(corpus.folder(None)).values(), key=work)
MOST = 300_000  # the work of a case that is put to them (refllm.verify.sized.work)
FEW = 8  # cases of each
ALONE = {  # what fails, or writes anything, on a case that is no small one
    "adamw_one_grid": "ADAMW/kernel-adamw-1000001-normal-step-5",
    "attention_nan_rows": "ATT/kernel-attention-3x2x129x129x64-padded",
    "matmul_columns_left": "LMHEAD/kernel-matmul-63x65x129-normal",
    "embedding_short_numbers": "EMB/kernel-embedding-50257x9-1025",
}

# kernel: the mistake that is named, or the words that say where
SAID = {
    "softmax_tail_dropped": "softmax/tail-of-32-unwritten",
    "softmax_of_one_block": "softmax/first-columns-alone",
    "softmax_without_rescaling": "softmax/no-rescale",
    "matmul_whole_tiles_of_k": "matmul/last-terms-lost",
    "matmul_narrow_accumulator": "matmul/product-in-float16",
    "matmul_columns_left": "matmul/last-columns-unwritten",
    "linear_bias_each_tile": "linear/bias-in-every-tile",
    "linear_reads_w_by_rows": "matmul/strides-unread",
    "attention_width_of_64": "attention/width-cut",
    "attention_top_left": "top-left",
    "attention_nan_rows": "attention/nothing-",
    "attention_last_tile_of_queries": "attention/key-gradient-overwritten",
    "embedding_racing_updates": "embedding/lost-updates",
    "embedding_short_numbers": "embedding/number-overflow",
    "layer_norm_padded_variance": "layer_norm/padding-in-variance",
    "layer_norm_one_pass": "layer_norm/one-pass",
    "rms_norm_second_row": "every second row",
    "cross_entropy_counts_ignored": "cross_entropy/ignored-counted",
    "rotary_single_angles": "rotary_halves/float32-angles",
    "adamw_one_grid": "adamw/first-block-alone",
    "lstm_updated_in_place": "lstm/state-in-place",
    "gelu_tanh_by_exponentials": "gelu_tanh/overflow",
    "dropout_scaled_forward_alone": "dropout/gradient-unscaled",
    "repeat_heads_by_remainder": "repeat_heads/interleaved",
}
NOT_NAMED: set[str] = set()


@cache
def failures(kernel: str) -> list[Result]:
    """What is told of the kernel, without laws."""
    module = importlib.import_module(f"spec_tests.verify.kernels.faulty.{kernel}")
    functions = {name: f for name, f in vars(module).items() if getattr(f, "__module__", "") == module.__name__}
    [operation] = functions
    sized = [case for case in KNOWN if case.operation == operation and not case.slow]
    chosen = [case for case in sized if case.id == ALONE.get(kernel)] or spread(
        [case for case in sized if work(case) < MOST]
    )
    plan, mine = plans.plan("eager", "float32"), Functions(kernel, functions, {}, ("float64", "float32"))
    watched = Recognised("float32", plan, 10)
    with warnings.catch_warnings(action="ignore"):
        results = list(judge.run(mine, chosen, "float32", plan, seen=watched.look))
        return [result for result in watched.explained(results) if result.wrong]


def spread(sized: list[cases.SizedCase]) -> list[cases.SizedCase]:
    """Small ones and large ones."""
    return sized[:: max(1, len(sized) // FEW)]


def said(kernel: str) -> str:
    """The messages and diagnoses of its failures, a named mistake with its id."""
    lines = [v.message for r in failures(kernel) for v in r.verdicts if v.wrong]
    return " ".join(lines + [line for r in failures(kernel) for line in r.diagnosis])


def test_there_are_twenty_four_kernels() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} == set(SAID)
    assert len(SAID) == 24


@pytest.mark.one_in(12)
@pytest.mark.parametrize("kernel", SAID)
def test_a_faulty_kernel_fails(kernel: str) -> None:
    assert failures(kernel), kernel
    assert {result.status for result in failures(kernel)} == {"fail"}


@pytest.mark.one_in(12)
@pytest.mark.parametrize("kernel", [kernel for kernel in SAID if kernel not in NOT_NAMED])
def test_the_fault_is_named_or_located(kernel: str) -> None:
    assert SAID[kernel] in said(kernel)


@pytest.mark.every
def test_at_most_one_explanation_is_given_with_its_lines() -> None:
    found = [
        result.diagnosis for kernel in ("softmax_of_one_block", "layer_norm_one_pass") for result in failures(kernel)
    ]
    assert all(len(lines) <= 1 for lines in found)
    assert any(isinstance(line, Explanation) and line.diff for lines in found for line in lines)
