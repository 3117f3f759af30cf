"""Laws of the consumer in JavaScript: right, wrong when a mistake is planted, never upset by a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from spec_tests.consumers import consumer, crafted
from spec_tests.consumers.consumer import Consumer
from spec_tests.tools import tool

pytestmark = pytest.mark.tools

SOURCE = consumer.SOURCES / "javascript" / "consumer.js"
OPERATIONS = (*consumer.SHARED, "relu")

MISTAKES = {
    "linear": (
        "dW.data[i * O + o] += d * x.data[n * I + i];",
        "dW.data[i * O + o] += d;",
    ),  # and matmul, which is the same function
    "embedding": ("dE.data[id * C + i] +=", "dE.data[id * C + i] ="),  # a repeated id
    "layer_norm": ("Math.sqrt(variance + eps)", "(Math.sqrt(variance) + eps)"),
    "softmax": ("y.data[i] * (dy.data[i] - along)", "y.data[i] * dy.data[i]"),
    "cross_entropy": ("kept.length ? 1 / kept.length", "kept.length ? 1 / targets.data.length"),
    "gelu_erf": ("share(x) + x * density(x)", "share(x) - x * density(x)"),
    "gelu_tanh": ("A * (x + 0.044715 * x ** 3)", "A * (x + 0.04471 * x ** 3)"),
    "attention": ("1 / Math.sqrt(D)", "1"),
    "adam": ("d + decay * p.data[i]", "d"),
    "adamw": ("old * (1 - lr * decay)", "old * (1 - decay)"),
    "relu": ("x > 0 ? 1 : 0", "x < 0 ? 0 : 1"),
}


def running(source: Path) -> Consumer:
    return Consumer((tool("node"), str(source)))


@pytest.fixture(scope="module")
def program() -> Consumer:
    return running(SOURCE)


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> Consumer:
    source = tmp_path_factory.mktemp("mistaken") / "consumer.js"
    source.write_text(consumer.patched(SOURCE.read_text(encoding="utf-8"), MISTAKES), encoding="utf-8")
    return running(source)


def test_every_case_of_its_operations_passes(program: Consumer) -> None:
    done = program("check", *consumer.level_1())
    had, others = consumer.tally(OPERATIONS)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{had} passed, 0 failed, {others} skipped\n", "")


def test_the_verifier_agrees(program: Consumer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, report = program.verify_at_once(capsys, tmp_path / "answers", "float64")
    had, others = consumer.tally(OPERATIONS)
    assert (status, report["passed"], report["failed"], report["skipped"]) == (0, had, 0, others)


def test_the_verifier_starts_it_once_a_case(program: Consumer, capsys: pytest.CaptureFixture[str]) -> None:
    only = ("--only", "LN/rows", "--only", "FFN/gelu-erf-tail", "--only", "SGD/clip-nan")
    status, report = program.verify(capsys, *only)
    assert (status, report["passed"], report["failed"], report["skipped"]) == (0, 2, 0, 1)


@pytest.fixture(scope="module")
def found(mistaken: Consumer) -> set[str]:
    return consumer.operations_that_fail(mistaken("check", *consumer.level_1()))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_planted_mistake_fails(operation: str, found: set[str]) -> None:
    assert operation in found


def test_it_judges_as_the_verifier_does(program: Consumer, tmp_path: Path) -> None:
    crafted.require_the_verdicts_of_the_verifier(program, "float64", tmp_path)


def test_nothing_and_what_is_not_finite_are_computed_with(program: Consumer, tmp_path: Path) -> None:
    crafted.require_the_answers_to_edges(program, tmp_path)


def test_the_verifier_names_the_planted_mistake(mistaken: Consumer, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = mistaken.verify(capsys, "--only", "ATT/square")
    assert status == 1
    assert "without the 1/√d_k scale" in report["results"]["ATT/square"]["diagnosis"][0]


@pytest.mark.parametrize("kind", consumer.MALFORMED)
def test_a_malformed_file_is_one_line_and_status_2(kind: str, program: Consumer, tmp_path: Path) -> None:
    done = program("check", consumer.malformed(tmp_path, kind))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_request_in_another_precision_is_answered_with_a_skip(program: Consumer, tmp_path: Path) -> None:
    request, response = consumer.ask(tmp_path, dtype="float32")
    assert program("answer", request, response).returncode == 0
    assert list(consumer.answer_in(response)) == ["skip"]


def test_a_malformed_request_gets_no_answer(program: Consumer, tmp_path: Path) -> None:
    request, response = consumer.ask(tmp_path, inputs={"x": {"dtype": "float64", "shape": [9], "data": [1.0]}})
    done = program("answer", request, response)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert not list(response.iterdir())


def test_it_says_how_to_call_it(program: Consumer) -> None:
    done = program("chek", "x")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "usage" in done.stderr
