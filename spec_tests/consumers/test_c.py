"""Laws of the consumer in C: right in both precisions, wrong when a mistake is planted, never upset by a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from spec_tests.consumers import consumer, crafted
from spec_tests.consumers.consumer import Consumer
from spec_tests.tools import tool

pytestmark = pytest.mark.tools

SOURCE = consumer.SOURCES / "c" / "consumer.c"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
REAL = {"float64": "double", "float32": "float"}

MISTAKES = {
    "linear": (
        "c->grad[1].at[i * O + o] += dy * x.at[n * I + i];",
        "c->grad[1].at[i * O + o] += dy;",
    ),  # and matmul, which is the same function
    "embedding": ("c->grad[0].at[row * width + i] +=", "c->grad[0].at[row * width + i] ="),  # a repeated id
    "layer_norm": ("sqrt(variance / (real)C + eps)", "(sqrt(variance / (real)C) + eps)"),
    "softmax": ("y.at[i] * (c->dy.at[i] - along)", "y.at[i] * c->dy.at[i]"),
    "cross_entropy": ("mean && kept ? 1 / (real)kept", "mean && kept ? 1 / (real)targets.count"),
    "gelu_erf": ("*slope = share + x *", "*slope = share - x *"),
    "gelu_tanh": ("(real)0.044715", "(real)0.04471"),
    "attention": ("1 / sqrt((real)D)", "1"),
    "adam": ("g.at[i] + decay * p.at[i]", "g.at[i]"),
    "adamw": ("p.at[i] *= 1 - lr * decay", "p.at[i] *= 1 - decay"),
}


def compiled(directory: Path, source: Path, *flags: str) -> Consumer:
    program = directory / "consumer"
    done = subprocess.run(
        [tool("cc"), *STRICT, *flags, "-o", program, source, "-lm"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Consumer((str(program),))


@pytest.fixture(scope="module", params=list(REAL))
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def program(dtype: str, tmp_path_factory: pytest.TempPathFactory) -> Consumer:
    return compiled(tmp_path_factory.mktemp(dtype), SOURCE, "-O2", f"-DREAL={REAL[dtype]}")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Consumer:
    """Every access that is out of bounds, and every leak, ends it with a status that is none of its own."""
    directory = tmp_path_factory.mktemp("sanitized")
    empty = directory / "empty.c"
    empty.write_text("int main(void) { return 0; }\n", encoding="ascii")
    command = [tool("cc"), *SANITIZERS, "-o", str(directory / "empty"), str(empty)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this C compiler has no sanitizers")
    return compiled(directory, SOURCE, *SANITIZERS)


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> Consumer:
    directory = tmp_path_factory.mktemp("mistaken")
    source = directory / "consumer.c"
    source.write_text(consumer.patched(SOURCE.read_text(encoding="utf-8"), MISTAKES), encoding="utf-8")
    return compiled(directory, source, "-O1")


def test_every_case_of_its_operations_passes(program: Consumer) -> None:
    done = program("check", *consumer.level_1())
    had, others = consumer.tally(consumer.SHARED)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{had} passed, 0 failed, {others} skipped\n", "")


def test_the_verifier_agrees(program: Consumer, dtype: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, report = program.verify_at_once(capsys, tmp_path / "answers", dtype)
    had, others = consumer.tally(consumer.SHARED)
    assert (status, report["passed"], report["failed"], report["skipped"]) == (0, had, 0, others)


def test_the_verifier_starts_it_once_a_case(program: Consumer, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    only = ("--only", "LN/rows", "--only", "FFN/gelu-erf-tail", "--only", "SGD/clip-nan")
    status, report = program.verify(capsys, *only, "--dtype", dtype)
    assert (status, report["passed"], report["failed"], report["skipped"]) == (0, 2, 0, 1)


@pytest.fixture(scope="module")
def found(mistaken: Consumer) -> set[str]:
    return consumer.operations_that_fail(mistaken("check", *consumer.level_1()))


@pytest.mark.parametrize("operation", consumer.SHARED)
def test_a_planted_mistake_fails(operation: str, found: set[str]) -> None:
    assert operation in found


def test_it_judges_as_the_verifier_does(program: Consumer, dtype: str, tmp_path: Path) -> None:
    crafted.require_the_verdicts_of_the_verifier(program, dtype, tmp_path)


def test_nothing_and_what_is_not_finite_are_computed_with(program: Consumer, tmp_path: Path) -> None:
    crafted.require_the_answers_to_edges(program, tmp_path)


def test_no_edge_is_out_of_bounds(sanitized: Consumer, tmp_path: Path) -> None:
    crafted.require_the_answers_to_edges(sanitized, tmp_path)


def test_the_verifier_names_the_planted_mistake(mistaken: Consumer, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = mistaken.verify(capsys, "--only", "ATT/square", "--only", "ATT/e1-three-tokens")
    assert status == 1
    assert "without the 1/√d_k scale" in report["results"]["ATT/square"]["diagnosis"][0]


def test_no_access_is_out_of_bounds_and_nothing_leaks(sanitized: Consumer) -> None:
    done = sanitized("check", *sorted(consumer.GOLDEN.glob("L?/*.json")))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", consumer.MALFORMED)
def test_a_malformed_file_is_one_line_and_status_2(kind: str, sanitized: Consumer, tmp_path: Path) -> None:
    done = sanitized("check", consumer.malformed(tmp_path, kind))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_request_for_what_it_does_not_have_is_answered_with_a_skip(program: Consumer, tmp_path: Path) -> None:
    request, response = consumer.ask(tmp_path, operation="warmup_cosine", inputs={})
    assert program("answer", request, response).returncode == 0
    assert list(consumer.answer_in(response)) == ["skip"]


def test_a_request_in_a_precision_it_was_not_built_for_is_answered_with_a_skip(
    program: Consumer, tmp_path: Path
) -> None:
    request, response = consumer.ask(tmp_path, dtype="bfloat16")
    assert program("answer", request, response).returncode == 0
    assert list(consumer.answer_in(response)) == ["skip"]


def test_a_malformed_request_gets_no_answer(sanitized: Consumer, tmp_path: Path) -> None:
    request, response = consumer.ask(tmp_path, inputs={"x": {"dtype": "float64", "shape": [9], "data": [1.0]}})
    done = sanitized("answer", request, response)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert not list(response.iterdir())


def test_it_says_how_to_call_it(program: Consumer) -> None:
    done = program("chek", "x")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "usage" in done.stderr
