"""A program as an implementation: any language, any failure, and the run goes on."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.verify import corpus, reference, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case, FaultError, Response, UnsupportedError
from refllm.verify.external import Command, Responses, read_response, write_request
from refllm.verify.tensors import from_inline, from_safetensors, to_inline, to_safetensors

HEAD = """
import json, os, sys, time
request, response = sys.argv[1:]
asked = json.load(open(request + "/request.json"))
def write(name, content):
    open(os.path.join(response, name), "wb").write(content if isinstance(content, bytes) else content.encode())
"""
RELU = """
x, dy = asked["inputs"]["x"], asked["cotangents"]["y"]
y = dict(x, data=[max(0.0, v) for v in x["data"]])
dx = dict(x, data=[d * (v > 0) for v, d in zip(x["data"], dy["data"])])
write("response.json", json.dumps({"outputs": {"y": y}, "gradients": {"x": dx}}))
"""

Program = Callable[..., Command]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def made(text: str, timeout: float = 20) -> Command:
        path = tmp_path / "program.py"
        path.write_text(HEAD + text)
        python = shlex.quote(sys.executable)
        return Command(f"{python} -I {shlex.quote(str(path))} {{request}} {{response}}", {}, timeout)

    return made


@pytest.fixture
def case(golden: corpus.Corpus) -> Case:
    return golden.cases["FFN/relu-grid"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_program_that_knows_json_alone_passes(
    program: Program, case: Case, golden: corpus.Corpus, dtype: str
) -> None:
    [result] = runner.run(program(RELU), [case], dtype, golden.C)
    assert result.status == "pass"


FAULTS = {
    "sys.exit(3)": "ended with status 3",
    "sys.exit('no such op')": "ended with status 1: no such op",
    "os.kill(os.getpid(), 11)": "was ended by SIGSEGV",
    "pass": "wrote no response.json and no response.safetensors",
    "write('response.json', '')": "garbage: response.json: not JSON",
    "write('response.json', b'\\xff\\x00')": "garbage: response.json: not JSON",
    "write('response.json', '[' * 10**6)": "garbage: response.json: (nested too deeply|not JSON)",
    "write('response.json', '{}')": "holds no outputs",
    "write('response.json', '{\"outputs\": {\"y\": 3}}')": "outputs.y: needs dtype, shape and data",
    "write('response.json', '{\"outputs\": 3}')": "outputs must be an object of tensors",
    "write('response.json', '{\"outputs\": {}, \"outputs\": {}}')": "stands twice",
    "write('response.json', json.dumps({'outputs': {'y': {'dtype': 'int8', 'shape': [99999999999], 'data': []}}}))":
        "needs a list of 99999999999 numbers",
    "write('response.safetensors', b'\\xff' * 100)": "cut short, or not a safetensors file",
    "os.mkdir(response + '/response.json')": "not a regular file",
    "os.mkfifo(response + '/response.safetensors')": "not a regular file",
    "os.symlink('/nowhere/at/all', response + '/response.json')": "no such file",
    "open(response + '/response.safetensors', 'wb').truncate(1 << 27)": "are more than the",
}  # fmt: skip


@pytest.mark.parametrize("text", FAULTS)
def test_a_crash_and_garbage_are_errors_of_the_case(
    program: Program, case: Case, golden: corpus.Corpus, text: str
) -> None:
    [result] = runner.run(program(text), [case], "float64", golden.C)
    assert result.status == "fault"
    with pytest.raises(AssertionError, match=FAULTS[text]):
        raise AssertionError(result.reason)
    assert "\n" not in result.reason


def test_a_hang_is_ended_with_its_children_and_the_run_goes_on(
    program: Program, case: Case, golden: corpus.Corpus, tmp_path: Path
) -> None:
    command = program(_child(tmp_path / "pid") + "time.sleep(600)", 1.0)
    start = time.monotonic()
    results = list(runner.run(command, [case], "float64", golden.C))
    assert time.monotonic() - start < 10
    assert [r.reason for r in results] == ["the command was stopped after 1 s (--timeout)"]
    assert gone(int((tmp_path / "pid").read_text()))


def test_children_that_are_left_behind_are_ended_too(program: Program, case: Case, tmp_path: Path) -> None:
    start = time.monotonic()
    program(_child(tmp_path / "pid") + RELU).respond(case, "float64")
    assert time.monotonic() - start < 10
    assert gone(int((tmp_path / "pid").read_text()))


WAYS = [  # to leave a program behind: in the group, out of it, without the environment, as a grandchild out of it
    "sleep 600 & echo $! > {note}",
    "setsid sleep 600 & echo $! > {note}",
    "env -i setsid sleep 600 & echo $! > {note}",
    "setsid sh -c 'sleep 600 & echo $! > {note}' &",
]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the process group is ended")
@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_what_left_its_group_and_its_session_is_ended_too(case: Case, tmp_path: Path, way: str, hangs: bool) -> None:
    script = tmp_path / "leaves.sh"
    wait = f"while ! [ -s {tmp_path / 'pid'} ]; do sleep 0.02; done"
    script.write_text(f"{way.format(note=tmp_path / 'pid')}\n{wait}\n{'sleep 600' if hangs else 'exit 3'}\n")
    command = Command(f"sh {shlex.quote(str(script))} {{request}} {{response}}", {}, 1.0, alone=True)
    with pytest.raises(FaultError, match="stopped after 1 s" if hangs else "status 3"):
        command.respond(case, "float64")
    assert gone(noted(tmp_path / "pid"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is adopted")
def test_a_program_of_somebody_else_is_left_alone(program: Program, case: Case) -> None:
    """One that was there before, and the child that it leaves behind while a command runs."""
    other = subprocess.Popen(["sh", "-c", "sleep 0.5; setsid sleep 600 & echo $!"], stdout=subprocess.PIPE)
    command = program(RELU + "time.sleep(1.5)\n")
    command.respond(case, "float64")
    assert other.stdout is not None
    pid = int(other.stdout.readline())
    other.wait()
    other.stdout.close()
    assert Path(f"/proc/{pid}").exists()
    os.kill(pid, 9)


def noted(note: Path) -> int:
    """The number of a process that is written there soon."""
    deadline = time.monotonic() + 10
    while not (note.exists() and note.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return int(note.read_text())


@pytest.mark.parametrize("name", ["response.json", "response.safetensors"])
@pytest.mark.parametrize("made", ["a folder", "a pipe", "a device", "a loop of links", "too large", "unreadable"])
def test_a_response_that_cannot_be_read_is_a_fault_of_its_case_alone(
    case: Case, golden: corpus.Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, name: str
) -> None:
    other = golden.cases["FFN/relu-at-zero"]
    (tmp_path / case.id).mkdir(parents=True)
    (tmp_path / other.id).mkdir(parents=True)
    path = tmp_path / case.id / name
    make: dict[str, Callable[[], object]] = {
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "a device": lambda: path.symlink_to("/dev/zero"),
        "a loop of links": lambda: path.symlink_to(path),
        "too large": lambda: (path.write_bytes(b""), os.truncate(path, 1 << 40)),  # type: ignore[func-returns-value]
        "unreadable": lambda: path.write_text("{}"),
    }
    make[made]()
    if made == "unreadable":  # for root there is no such file
        monkeypatch.setattr(type(path), "open", _refused)
    results = list(runner.run(Responses(tmp_path, {}), [case, other], "float64", golden.C))
    assert [r.status for r in results] == ["fault", "skip"]
    assert results[0].reason.startswith(f"the response is garbage: {name}: ")


def _refused(*_: Any, **__: Any) -> Any:
    raise PermissionError(13, "Permission denied")


def test_missing_responses_share_one_reason(golden: corpus.Corpus, tmp_path: Path) -> None:
    cases = [case for case in golden.cases.values() if case.level < 6]
    reasons = {r.reason for r in runner.run(Responses(tmp_path, {}), cases, "float64", golden.C)}
    assert reasons == {f"there is no response in {tmp_path}"}


def _child(note: Path) -> str:
    """A program that starts another one and notes its number."""
    return f"""
import subprocess
child = subprocess.Popen(["sleep", "600"])
with open({str(note)!r}, "w") as note:
    note.write(str(child.pid))
"""


def gone(pid: int) -> bool:
    """Ended, whether or not its new parent has noticed."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def test_a_flood_of_messages_neither_blocks_nor_fills_the_report(program: Program, case: Case) -> None:
    flood = "sys.stderr.write('x' * 10**7 + '\\nthe reason\\n'); sys.stdout.write('y' * 10**7); sys.exit(1)"
    with pytest.raises(FaultError, match=r"ended with status 1: the reason$"):
        program(flood).respond(case, "float64")


def test_a_program_may_say_that_it_does_not_support_a_case(program: Program, case: Case) -> None:
    with pytest.raises(UnsupportedError, match="it answers: no relu here"):
        program("write('response.json', json.dumps({'skip': 'no relu here'}))").respond(case, "float64")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("./none {request} {response}", r"there is no program \./none"),
        ("true {request}", "needs the place {response}"),
        ("true {response}", "needs the place {request}"),
        ("true '{request} {response}", "No closing quotation"),
        ("", "needs the place"),
    ],
)
def test_a_command_that_cannot_run_is_refused_before_anything_runs(command: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Command(command, {}, 1)


def _answer(case: Case, dtype: str, request: Path, response: Path) -> None:
    """refllm answering through files: it sees nothing but the request."""
    asked = json.loads((request / "request.json").read_text())
    tensors = from_safetensors((request / "request.safetensors").read_bytes(), "request")

    def read(group: str) -> dict[str, Any]:
        found = {}
        for name, x in asked[group].items():
            inline = isinstance(x, dict) and "data" in x
            found[name] = tensors[f"{group}.{name}"][1] if inline else x
            if inline:
                numpy.testing.assert_array_equal(from_inline(x, name), found[name])
        return found

    blank = Case(
        asked["id"], case.spec, case.section, asked["operation"], case.level, "", tuple(asked["order"]),
        read("inputs"), read("keywords"), read("cotangents"),
        dict.fromkeys(asked["outputs"], case.outputs[asked["outputs"][0]]), case.gradients,
    )  # fmt: skip
    said: Response = Functions("refllm", reference.functions(), {}).respond(blank, dtype)
    arrays = {f"outputs.{n}": numpy.asarray(x) for n, x in said.outputs.items()}
    arrays |= {f"gradients.{n}": numpy.asarray(x) for n, x in (said.gradients or {}).items()}
    kinds = {name: case.stored or str(x.dtype) for name, x in arrays.items()}
    response.mkdir(parents=True, exist_ok=True)
    (response / "response.safetensors").write_bytes(to_safetensors({n: (kinds[n], x) for n, x in arrays.items()}))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("most", [1, pytest.param(10**6, marks=pytest.mark.slow)], ids=["a case each", "all"])
def test_every_case_but_resuming_can_be_answered_through_files(
    golden: corpus.Corpus, tmp_path: Path, most: int, dtype: str
) -> None:
    """Of every operation."""
    by_operation: dict[str, list[Case]] = {}
    for case in golden.cases.values():
        by_operation.setdefault(case.operation, []).append(case)
    cases = [case for name, own in by_operation.items() if name != "warmup_cosine" for case in own[:most]]
    for case in cases:
        if case.level != 6:
            write_request(tmp_path / case.id, case, dtype)
            _answer(case, dtype, tmp_path / case.id, tmp_path / case.id)
    by_files = list(runner.run(Responses(tmp_path, {}), cases, dtype, golden.C))
    direct = list(runner.run(Functions("r", reference.functions(), {}), cases, dtype, golden.C))
    for result, expected in zip(by_files, direct, strict=True):
        assert result.status == ("skip" if result.case.level == 6 else expected.status), result.reason


def test_a_response_that_is_not_there_is_skipped_with_its_reason(case: Case, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="there is no response in"):
        Responses(tmp_path, {}).respond(case, "float64")
    with pytest.raises(UserError, match="no such directory"):
        Responses(tmp_path / "none", {})


def test_a_gradient_that_is_left_out_is_missing(golden: corpus.Corpus, tmp_path: Path) -> None:
    case = golden.cases["ATT/square"]
    said = {"outputs": {"y": to_inline(case.outputs["y"].value)},
            "gradients": {"q": to_inline(case.gradients["q"].value)}}  # fmt: skip
    (tmp_path / "response.json").write_text(json.dumps(said))
    response = read_response(tmp_path, case)
    assert response is not None
    wrong = [v.message for v in runner.judge(case, response, "float64", golden.C) if v.wrong]
    assert wrong == ["gradient of k is missing (None)", "gradient of v is missing (None)"]
