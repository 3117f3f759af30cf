"""refllm verify: its exit status is the verdict, and nothing that was not checked is called right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refllm.cli import main
from refllm.commands.streams import INTERRUPTED
from refllm.verify import corpus, search
from spec_tests.verify.folder import Folder

RIGHT = "import numpy\ndef relu(x):\n    return numpy.maximum(x, 0), lambda dy: dy * (x > 0)\n"
ZEROS = "def relu(x):\n    return x * 0, lambda dy: dy * 0\n"

Report = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        (tmp_path / "mine.py").write_text(text)
        return str(tmp_path / "mine.py")

    return write


@pytest.fixture
def verified(capsys: pytest.CaptureFixture[str]) -> Report:
    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        status = main(["verify", *arguments, "--json"])
        data = json.loads(capsys.readouterr().out)
        for result in data.get("results", {}).values():
            del result["seconds"]  # the only thing that a repetition changes
        return status, data

    return run


def _line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["verify", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_refllm_itself_is_right_and_every_case_of_the_manifest_was_run(verified: Report, dtype: str) -> None:
    status, report = verified("--self", "--dtype", dtype)
    manifest = json.loads((corpus.folder(None) / "MANIFEST.json").read_text())
    assert (status, report["passed"], report["failed"], report["skipped"]) == (0, manifest["cases"], 0, 0)
    assert 0 < report["worst_ratio"] <= 1


def test_a_right_adapter_is_0_and_a_wrong_one_1(verified: Report, adapter: Callable[[str], str]) -> None:
    status, report = verified(adapter(RIGHT), "--only", "relu")
    assert (status, report["failed"], report["skipped"]) == (0, 0, 0)
    status, report = verified(adapter(ZEROS), "--only", "relu")
    assert (status, report["passed"]) == (1, 0)


def test_who_interrupts_the_search_still_reads_what_fails(
    adapter: Callable[[str], str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "explained", interrupted)
    assert main(["verify", adapter(ZEROS), "--only", "relu"]) == INTERRUPTED
    printed = capsys.readouterr()
    assert "relu: " in printed.out
    assert "cases fail" in printed.out
    assert "without them" in printed.err


def test_functions_that_are_not_there_are_skipped(verified: Report, adapter: Callable[[str], str]) -> None:
    status, report = verified(adapter(RIGHT))
    assert status == 0
    assert report["skipped"] == report["cases"] - report["passed"]
    assert {r["status"] for r in report["results"].values() if r["operation"] != "relu"} == {"skip"}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("text", ["", "def rellu(x): return x", "DTYPES = ['float16']\n" + RIGHT])
def test_an_adapter_of_which_nothing_ran_is_2(
    capsys: pytest.CaptureFixture[str], adapter: Callable[[str], str], text: str
) -> None:
    assert "no case was run, so nothing is verified" in _line(capsys, adapter(text))


def test_level_0_asks_for_all_that_are_bits_conversions_too(verified: Report) -> None:
    status, report = verified("--self", "--level", "0")
    assert (status, report["failed"], report["skipped"]) == (0, 0, 0)
    assert {r["operation"] for r in report["results"].values()} == {"identity", "narrowed", "widened"}
    for kind in ("bfloat16", "float16", "float8-e4m3", "float8-e5m2"):
        asked = {id.removeprefix(f"FP8/{kind}-") for id in report["results"] if id.startswith(f"FP8/{kind}")}
        assert {"ties", "subnormal", "overflow", "saturated", "nan", "nan-saturated", "zeros"} <= asked


def test_only_is_an_operation_a_specification_or_a_case_and_else_its_beginning(verified: Report) -> None:
    def chosen(*only: str) -> set[str]:
        return set(verified("--self", *(word for name in only for word in ("--only", name)))[1]["results"])

    assert chosen("ATT/square") == {"ATT/square"}
    assert all(name.startswith("ATT/") for name in chosen("ATT"))
    assert {name.partition("/")[0] for name in chosen("attention")} == {"ATT", "ATT-MASK"}
    assert chosen("ATT-MASK/causal-l") >= {"ATT-MASK/causal-longer-keys", "ATT-MASK/causal-longer-queries"}
    assert chosen("ATT/square", "relu") == {"ATT/square"} | chosen("relu")


@pytest.mark.every
@pytest.mark.parametrize("level", range(7))
def test_a_level_is_a_number_with_or_without_its_letter(verified: Report, level: int) -> None:
    plain, letter = verified("--self", "--level", str(level))[1], verified("--self", "--level", f"L{level}")[1]
    assert plain == letter
    assert {r["level"] for r in plain["results"].values()} == ({0, 1} if level == 0 else {level})


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to verify"),
        (["--self", "mine.py"], "say what to verify"),
        (["none.py"], "none.py is no Python file"),
        (["--self", "--level", "8"], "--level 8: the levels are 0 to 7"),
        (["--self", "--only", "NOTHING"], "no case is chosen"),
        (["--self", "--golden", "nowhere"], "there is no MANIFEST.json in it"),
        (["--self", "--convention", "gelu=tanh"], "the golden files know adam_eps="),
        (["--mutants", "--level", "6"], "call nothing that a mutant imitates"),
        (["--self", "--timeout", "0"], "--timeout must be above 0"),
        (["--cmd", "true"], "needs the place {request}"),
        (["--responses", "nowhere"], "no such directory"),
        (["--self", "--dtype", "bfloat16"], "no case was run"),
    ],
)
def test_what_cannot_run_is_2_and_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in _line(capsys, *arguments)


def test_a_truncated_corpus_is_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = Folder(tmp_path / "golden").root
    (root / "L1/relu.json").unlink()
    assert "L1/relu.json: listed in MANIFEST.json but not there" in _line(capsys, "--self", "--golden", str(root))


def test_a_convention_can_be_declared_on_the_command_line(verified: Report) -> None:
    status, report = verified("--self", "--only", "sinusoidal", "--convention", "sinusoidal_layout=halves")
    assert status == 1
    assert report["convention"] > report["passed"]  # in width 2 the layouts are one
    assert report["failed"] == 0


@pytest.mark.parametrize("convention", ["foo=bar", "sinusoidal_layout=thirds"])
def test_a_convention_that_no_case_has_is_refused_wherever_it_is_declared(
    convention: str, capsys: pytest.CaptureFixture[str], adapter: Callable[[str], str]
) -> None:
    name, _, value = convention.partition("=")
    path = adapter(f"CONVENTIONS = {{'{name}': '{value}'}}\n" + RIGHT)
    on_the_line = _line(capsys, "--self", "--convention", convention)
    in_the_file = _line(capsys, path)
    assert f'mine.py: CONVENTIONS = {{"{name}": "{value}"}}: the golden files know adam_eps=' in in_the_file
    assert on_the_line.partition(": the golden")[2] == in_the_file.partition(": the golden")[2] != ""


def test_the_bank_is_put_to_chosen_cases_as_far_as_they_reach(verified: Report) -> None:
    status, report = verified("--mutants", "--only", "softmax")
    assert (status, report["survivors"]) == (0, [])
    assert 5 < report["mutants"] == report["killed"] < 100
    assert {name.partition("/")[0] for name in report["matrix"]} == {"SMX"}
    status, report = verified("--mutants", "--only", "SMX/softmax-vector")
    assert (status, report["survivors"] != []) == (1, True)


def test_the_bank_is_put_to_cases_in_the_precisions_of_refllm(capsys: pytest.CaptureFixture[str]) -> None:
    for dtype in ("float16", "bfloat16", "tf32"):
        assert "float64 or float32" in _line(capsys, "--mutants", "--only", "softmax", "--dtype", dtype)


@pytest.mark.every
def test_mistakes_of_kernels_are_put_to_the_sized_cases(capsys: pytest.CaptureFixture[str], verified: Report) -> None:
    flags = ["--mutants", "--size", "kernel", "--dtype", "float32"]
    status, report = verified(*flags, "--only", "dropout")
    assert (status, report["survivors"], report["mistakes"]) == (0, [], report["killed"])
    assert {name.partition("/")[0] for name in report["cases"]} == {"dropout"}
    assert verified(*flags, "--only", "ADAMW/kernel-adamw-1-normal-step-1")[0] == 1
    assert "no mistake of a kernel is of the cases chosen" in _line(capsys, *flags, "--only", "gelu_erf")
    assert "--size tiny, or --size kernel" in _line(capsys, "--mutants", "--size", "all")


def test_requests_are_written_once_and_answers_to_them_are_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verified: Report
) -> None:
    where = str(tmp_path / "requests")
    assert main(["verify", "--requests", where, "--only", "FFN/relu-grid"]) == 0
    assert "1 requests in" in capsys.readouterr().out
    asked = json.loads((tmp_path / "requests/FFN/relu-grid/request.json").read_text())
    x = asked["inputs"]["x"]
    answer = {"outputs": {"y": {**x, "data": [max(0.0, v) for v in x["data"]]}},
              "gradients": {"x": asked["cotangents"]["y"]}}  # fmt: skip
    (tmp_path / "requests/FFN/relu-grid/response.json").write_text(json.dumps(answer))
    status, report = verified("--responses", where)
    assert (status, report["failed"], report["skipped"]) == (1, 1, report["cases"] - 1)
    assert [w["tensor"] for w in report["results"]["FFN/relu-grid"]["wrong"]] == ["gradient of x"]
    assert "is not empty" in _line(capsys, "--requests", where)


def test_the_report_is_also_written_as_junit_and_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.xml", tmp_path / "a.html"]
    assert main(["verify", "--self", "--level", "0", "--junit", str(files[0]), "--html", str(files[1])]) == 0
    assert re.search(r"\n(\d+) cases: \1 passed\.", capsys.readouterr().out)
    assert all(file.stat().st_size > 100 for file in files)
