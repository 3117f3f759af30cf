"""A program that stays alive: it answers frames, and whatever it does is a fault of its case alone."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy
import pytest

from refllm.cli import main
from refllm.errors import UserError
from refllm.verify import corpus, laws, runner
from refllm.verify.served import Served, answered, asked
from refllm.verify.tensors import bytes_of
from spec_tests.verify.folder import GOLDEN
from spec_tests.verify.test_external import gone, noted

PROGRAM = """
import array, json, os, subprocess, sys, time
ASKED = 0
def read(count):
    content = sys.stdin.buffer.read(count)
    if len(content) < count: sys.exit(0)
    return content
def frame(said, data=b""):
    text = json.dumps(said).encode()
    sys.stdout.buffer.write(len(text).to_bytes(8, "little") + len(data).to_bytes(8, "little") + text + data)
    sys.stdout.buffer.flush()
def numbers(x):
    return array.array("d", data[x["at"]:][: 8 * count(x)])
def count(x):
    n = 1
    for size in x["shape"]: n *= size
    return n
while True:
    said, length = (int.from_bytes(read(8), "little") for _ in range(2))
    asked, data = json.loads(read(said)), read(length)
    ASKED += 1
    x = asked["inputs"]["x"]
    if asked["operation"] == "relu":
        pass
        RELU
    if asked["operation"] not in ("relu", "silu"):
        frame({"id": asked["id"], "skip": "no function"})
        continue
    import math
    values, dy = numbers(x), numbers(asked["cotangents"]["y"]) if asked["cotangents"] else None
    if asked["operation"] == "relu":
        y = [max(v, 0.0) for v in values]
        dx = dy and [d * (v > 0) for d, v in zip(dy, values)]
    else:
        s = [1 / (1 + math.exp(-v)) if v > -700 else 0.0 for v in values]
        y = [v * p for v, p in zip(values, s)]
        dx = dy and [d * p * (1 + v * (1 - p)) for d, v, p in zip(dy, values, s)]
    made = {"y": {"dtype": "float64", "shape": x["shape"], "at": 0}}
    gradients = {"x": {**made["y"], "at": 8 * len(y)}} if dy is not None else {}
    frame({"id": asked["id"], "outputs": made, "gradients": gradients},
          array.array("d", y).tobytes() + array.array("d", dx or []).tobytes())
"""

FAULTS = {
    "sys.exit(3)": "relu: the process ended with status 3",
    "sys.exit('the last words')": "relu: the process ended with status 1: the last words",
    "os.abort()": "relu: the process was ended by SIGABRT",
    "time.sleep(60)": "relu was stopped after 0.7 s (--timeout)",
    "print('hello, this is no frame at all'); sys.stdout.flush(); time.sleep(60)": "the answer is garbage: a frame of ",
    "sys.stdout.buffer.write(b'\\xff' * 64); sys.stdout.flush(); time.sleep(60)": "the answer is garbage: a frame of ",
    "sys.stdout.buffer.write((9).to_bytes(8, 'little') + bytes(8) + b'not json!'); sys.stdout.flush(); time.sleep(9)":
        "the answer is garbage: the frame: not JSON",
    "sys.stdout.buffer.write((99).to_bytes(8, 'little') + bytes(8) + b'{'); sys.stdout.flush(); sys.exit(0)":
        "relu: the process ended with status 0",
    "frame({'id': 'another', 'outputs': {}}); continue": "the answer is for 'another', not for FFN/relu-",
    "frame({'outputs': {}}); continue": "the answer is for None, not for FFN/relu-",
    "frame({'id': asked['id'], 'outputs': {}}); continue": "the answer holds no outputs",
    "frame({'id': asked['id'], 'error': 'no luck'}); continue": "it answers with an error: no luck",
    "frame({'id': asked['id'], 'outputs': {'y': 3}}); continue": "outputs.y: needs dtype, shape and at",
    "frame({'id': asked['id'], 'outputs': {'y': {'dtype': 'float64', 'shape': [10**9], 'at': 0}}}); continue":
        "does not fit into the 0 bytes sent",
    "frame({'id': asked['id'], 'outputs': {'y': {'dtype': 'float64', 'shape': [1], 'at': -8}}}); continue":
        "outputs.y: at is -8, outside the 0 bytes of the frame",
    "frame({'id': asked['id'], 'outputs': {'y': {'dtype': 'complex', 'shape': [1], 'at': 0}}}); continue":
        "outputs.y: unknown dtype 'complex'",
    "[subprocess.Popen(['sleep', '60']) for _ in range(40)]; time.sleep(60)":
        "relu was stopped after 0.7 s (--timeout)",
}  # fmt: skip

Program = Callable[..., Served]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = list[Served]()

    def write(relu: str = "", timeout: float = 20) -> Served:
        (tmp_path / "program.py").write_text(PROGRAM.replace("RELU", relu))
        words = shlex.join([sys.executable, "-I", str(tmp_path / "program.py")])
        made.append(Served(words, {}, timeout, alone=True))
        return made[-1]

    yield write
    for each in made:
        each.close()


def test_one_process_answers_every_case_and_the_laws(program: Program, golden: corpus.Corpus) -> None:
    mine = program("assert ASKED > 0")
    cases = [case for case in golden.cases.values() if case.operation in ("relu", "silu")]
    results = list(laws.held(mine, list(runner.run(mine, cases, "float64", golden.C)), "float64", golden.C, 1e3))
    assert {result.status for result in results} == {"pass"}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("relu", FAULTS)
def test_a_fault_is_that_of_its_case_and_the_program_is_started_again(
    program: Program, golden: corpus.Corpus, relu: str
) -> None:
    mine = program(relu, 0.7 if "stopped" in FAULTS[relu] else 20)
    cases = [golden.cases[name] for name in ("FFN/silu-grid", "FFN/relu-grid", "FFN/silu-large", "FFN/relu-at-zero")]
    found = list(runner.run(mine, cases, "float64", golden.C))
    assert [result.status for result in found] == ["pass", "fault", "pass", "fault"]
    assert FAULTS[relu] in found[1].reason
    assert "\n" not in found[1].reason


def test_a_second_frame_for_one_question_is_put_down_to_it(program: Program, golden: corpus.Corpus) -> None:
    mine = program("frame({'id': asked['id'], 'skip': 'once'})")
    cases = [golden.cases[name] for name in ("FFN/relu-grid", "FFN/silu-grid", "FFN/silu-large")]
    first, *_ = runner.run(mine, cases[:1], "float64", golden.C)
    time.sleep(0.3)
    second, third = runner.run(mine, cases[1:], "float64", golden.C)
    assert (first.status, second.status, third.status) == ("skip", "fault", "pass")
    assert "more than one frame" in second.reason


def test_what_the_program_started_is_ended_with_it(program: Program, golden: corpus.Corpus, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    started = f"open({str(note)!r}, 'w').write(str(subprocess.Popen(['sleep', '60'], start_new_session=True).pid))"
    mine = program(started)
    mine.respond(golden.cases["FFN/relu-grid"], "float64")
    pid = noted(note)
    mine.close()
    assert gone(pid)


def test_a_function_that_is_not_there_is_counted_as_one(program: Program, golden: corpus.Corpus) -> None:
    case = next(case for case in golden.cases.values() if case.operation == "tanh")
    [result] = runner.run(program(), [case], "float64", golden.C)
    assert (result.status, result.absent) == ("skip", "tanh")


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "tf32", "float16"])
def test_a_question_holds_the_case_and_follows_the_schema(golden: corpus.Corpus, dtype: str) -> None:
    schema = json.loads((GOLDEN / "schemas/serve.schema.json").read_text(encoding="utf-8"))
    check = jsonschema.Draft202012Validator(schema)
    for case in list(golden.cases.values())[::7]:
        said, data = asked(case, dtype)
        check.validate(said)
        as_answer = {"id": case.id, "outputs": said["inputs"] or said["keywords"]}
        tensors = {n: x for n, x in as_answer["outputs"].items() if isinstance(x, dict) and "at" in x}
        if not tensors:
            continue
        check.validate({**as_answer, "outputs": tensors})
        for name, x in answered({**as_answer, "outputs": tensors}, data).outputs.items():
            own: Any = case.inputs.get(name, case.keywords.get(name))
            kind = tensors[name]["dtype"]
            assert x.shape == own.shape
            assert bytes_of(x, kind) == bytes_of(own if case.stored else own.astype(x.dtype), kind)


def test_all_that_is_sent_arrives(golden: corpus.Corpus) -> None:
    """Trees, masks, several outputs."""
    for name in ("MHA/causal-left-padding", "MOE/layer-empty-expert", "LSTM/remembers", "CE/ignore-mean"):
        case = golden.cases[name]
        said, data = asked(case, "float64")
        arrays = answered({"id": case.id, "outputs": said["inputs"]}, data).outputs
        assert list(arrays) == list(case.inputs)
        assert all(numpy.array_equal(arrays[n], x) for n, x in case.inputs.items())


@pytest.mark.parametrize(
    ("command", "message"), [("", "no program"), ("'", "No closing quotation"), ("./no_such_program", "no program")]
)
def test_what_cannot_be_started_is_one_line(command: str, message: str, capsys: Any) -> None:
    if command:
        assert main(["verify", "--serve", command]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UserError, match=message):
        Served(command, {}, 20)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is filled by glibc")
def test_memory_that_was_never_written_holds_what_nobody_wrote(program: Program, golden: corpus.Corpus) -> None:
    """Of a program, too, in which it is the C library that fills it."""
    source = "import ctypes; c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p"
    read = "fresh = ctypes.cast(c.malloc(64), ctypes.POINTER(ctypes.c_double))[5]"
    mine = program(f"{source}\n        {read}\n        data = data if abs(fresh) < 1e300 else bytes(len(data))")
    cases = [case for case in golden.cases.values() if case.operation == "relu"]
    results = list(laws.held(mine, list(runner.run(mine, cases, "float64", golden.C)), "float64", golden.C, 1e3))
    assert any(law.name == "memory that was never written" for result in results for law in result.broken)
