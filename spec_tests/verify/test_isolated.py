"""An adapter in a process of its own: whatever its library does is a fault of its case, and the run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest

import refllm
from refllm.cli import main
from refllm.errors import UserError
from refllm.verify import corpus, frames, runner
from refllm.verify.case import FaultError, Response
from refllm.verify.frames import Foreign
from refllm.verify.isolated import Isolated
from spec_tests.verify.test_external import WAYS, gone, noted

RIGHT = """
import _thread, ctypes, os, signal, subprocess, sys, threading, time
import numpy
def silu(x):
    s = 1 / (1 + numpy.exp(-x))
    return x * s, lambda dy: dy * s * (1 + x * (1 - s))
def relu(x):
"""
CRASHES = {
    "    ctypes.string_at(0)": r"relu: the process was ended by SIGSEGV \(mine.py, line 8\)",
    "    os.abort()": r"relu: the process was ended by SIGABRT \(mine.py, line 8\)",
    "    os._exit(0)": "relu: the process ended with status 0",
    "    print('the last words'); os._exit(3)": "relu: the process ended with status 3: the last words",
    "    os.kill(os.getpid(), signal.SIGKILL)": "relu: the process was ended by SIGKILL",
    "    threading.Thread(target=lambda: os._exit(7)).start(); time.sleep(30)": "relu: the process ended with status 7",
    "    _thread.interrupt_main(); time.sleep(30)": "relu raised KeyboardInterrupt",
    "    os.kill(os.getpid(), signal.SIGINT); time.sleep(30)": "relu raised KeyboardInterrupt",
    "    while True: pass": r"relu was stopped after 0.5 s \(--timeout\)",
    "    os.kill(os.getpid(), signal.SIGSTOP)": r"relu was stopped after 0.5 s \(--timeout\)",
    "    os.closerange(3, 100); time.sleep(30)": "relu: the process closed the pipe that its answers go through",
    "    return x, lambda dy: os._exit(9)": "relu: the process ended with status 9",
    "    class Panic(BaseException): pass\n    raise Panic('no')": r"relu raised Panic: no \(mine.py, line 9\)",
    "    raise SystemExit(2)": "relu raised SystemExit: 2",
    "    return numpy.broadcast_to(0.0, (10**6, 10**6))": r"wrong shape: \(1000000, 1000000\)",
    "    return numpy.array([open(__file__)] * x.size)": "wrong dtype: expected float64, got object",
    "    return subprocess.run": "output y is a function, not a NumPy array",
    "    return numpy.ma.array(x, mask=True)": "is a masked array with ",
    "    return numpy.matrix(numpy.zeros((1, 1)))": r"wrong shape: \(1, 1\)",
    "    return x.tolist()": "output y is a list, not a NumPy array",
}

Adapter = Callable[..., Isolated]


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Adapter]:
    opened = list[Isolated]()

    def write(text: str, timeout: float = 20.0) -> Isolated:
        (tmp_path / "mine.py").write_text(text)
        opened.append(Isolated(tmp_path / "mine.py", timeout, alone=True))
        return opened[-1]

    yield write
    for each in opened:
        each.close()


@pytest.mark.one_in(24)
@pytest.mark.parametrize("text", CRASHES)
def test_a_crash_is_a_fault_of_its_case_and_the_next_is_answered(
    adapter: Adapter, golden: corpus.Corpus, text: str
) -> None:
    cases = [golden.cases[name] for name in ("FFN/relu-grid", "FFN/silu-grid", "FFN/relu-at-zero", "FFN/silu-large")]
    hangs = "was stopped after" in CRASHES[text]
    found = list(runner.run(adapter(RIGHT + text, 0.5 if hangs else 20.0), cases, "float64", golden.C))
    assert [r.status for r in found[1::2]] == ["pass", "pass"]
    for result in found[::2]:
        said = "\n".join([result.reason, *(v.message for v in result.verdicts)])
        with pytest.raises(AssertionError, match=CRASHES[text]):
            raise AssertionError(said)
        assert result.failed
        assert "\n" not in result.reason


def test_what_a_call_leaves_running_is_put_down_to_it(adapter: Adapter, golden: corpus.Corpus) -> None:
    late = "    threading.Timer(0.3, os._exit, [5]).start()\n    return numpy.maximum(x, 0)"
    mine = adapter(RIGHT + late)
    mine.respond(golden.cases["FFN/relu-grid"], "float64")
    time.sleep(0.8)
    with pytest.raises(FaultError, match=r"status 5 before it was called: FFN/relu-grid left something behind"):
        mine.respond(golden.cases["FFN/silu-grid"], "float64")
    mine.respond(golden.cases["FFN/silu-grid"], "float64")


def test_one_process_answers_all_cases_so_that_what_is_left_behind_shows(
    adapter: Adapter, golden: corpus.Corpus
) -> None:
    mine = adapter("import os\nimport numpy\ndef relu(x):\n    return numpy.full(x.shape, float(os.getpid()))\n")
    cases = [case for case in golden.cases.values() if case.operation == "relu"]
    assert len({float(mine.respond(case, "float64").outputs["y"].flat[0]) for case in cases}) == 1
    other = mine.fresh(20.0)
    assert (
        other.respond(cases[0], "float64").outputs["y"].flat[0]
        != mine.respond(cases[0], "float64").outputs["y"].flat[0]
    )
    other.close()


def test_what_a_library_prints_from_c_too_does_not_reach_the_report(
    tmp_path: Path, golden: corpus.Corpus, capfd: pytest.CaptureFixture[str]
) -> None:
    noisy = "    print('from Python')\n    os.write(1, b'from C\\n')\n    return numpy.maximum(x, 0)\n"
    (tmp_path / "mine.py").write_text("print('loading')\n" + RIGHT + noisy)
    assert main(["verify", str(tmp_path / "mine.py"), "--only", "FFN/relu-grid", "--values"]) == 0
    out, err = capfd.readouterr()
    assert "from" not in out
    assert all(words in err for words in ("loading", "from Python", "from C"))


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\nos.abort()", r"cannot be imported: the process was ended by SIGABRT \(mine.py, line 2\)$"),
        ("import os\nos._exit(0)", "cannot be imported: the process ended with status 0$"),
        ("1 / 0", r"cannot be imported: ZeroDivisionError: division by zero \(mine.py, line 1\)$"),
        ("def (", r"cannot be imported: SyntaxError: .* \(mine.py, line 1\)$"),
        ("raise KeyboardInterrupt", "cannot be imported: "),
        ("DTYPES = 3", "DTYPES must be a list"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(adapter: Adapter, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        adapter(text)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_imported_again_fails_the_rest_of_its_cases(
    adapter: Adapter, golden: corpus.Corpus, tmp_path: Path
) -> None:
    once = f"import os\nopen({str(tmp_path / 'once')!r}, 'x')\ndef relu(x): os._exit(1)\ndef silu(x): return x\n"
    cases = [golden.cases[name] for name in ("FFN/relu-grid", "FFN/silu-grid", "FFN/silu-large")]
    found = list(runner.run(adapter(once), cases, "float64", golden.C))
    assert [r.status for r in found] == ["fault"] * 3
    assert all("could not be started again: " in r.reason and "FileExistsError" in r.reason for r in found[1:])


def test_what_lies_beside_an_adapter_can_be_imported_when_it_is_called_too(
    adapter: Adapter, golden: corpus.Corpus, tmp_path: Path
) -> None:
    (tmp_path / "beside_and_late.py").write_text("def rectified(x): return x * (x > 0)\n")
    before = list(sys.path)
    mine = adapter("def relu(x):\n    from beside_and_late import rectified\n    return rectified(x)\n")
    numpy.testing.assert_array_equal(
        mine.respond(golden.cases["FFN/relu-grid"], "float64").outputs["y"],
        golden.cases["FFN/relu-grid"].outputs["y"].value,
    )
    assert sys.path == before


@pytest.mark.one_in(4)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the process group is ended")
@pytest.mark.parametrize("way", WAYS)
def test_what_an_adapter_started_ends_with_it(
    adapter: Adapter, golden: corpus.Corpus, tmp_path: Path, way: str
) -> None:
    text = f"    subprocess.Popen({way.format(note=tmp_path / 'pid')!r}, shell=True).wait()\n    return x * (x > 0)\n"
    mine = adapter(RIGHT + text)
    mine.respond(golden.cases["FFN/relu-grid"], "float64")
    pid = noted(tmp_path / "pid")
    mine.close()
    assert gone(pid)


@pytest.mark.slow
def test_many_verifications_leave_no_process_no_file_and_no_thread(tmp_path: Path) -> None:
    """In a process of its own, so that nothing else opens or closes anything meanwhile."""
    (tmp_path / "mine.py").write_text(RIGHT + "    os._exit(0)\n")
    program = f"""
import contextlib, io, os, sys, threading
from refllm.cli import main
def state():
    return len(os.listdir("/proc/self/fd")), threading.active_count(), list(sys.path), [
        open(f"/proc/self/task/{{t}}/children").read() for t in os.listdir("/proc/self/task")]
def once():
    with contextlib.redirect_stdout(io.StringIO()):
        return main(["verify", {str(tmp_path / "mine.py")!r}, "--only", "silu", "--only", "FFN/relu-grid"])
statuses, before = {{once()}}, state()
for _ in range(2):
    statuses.add(once())
assert statuses == {{1}} and state() == before, (statuses, before, state())
"""
    root = Path(refllm.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


STATE = """
import numpy
calls = []
def relu(x):
    calls.append(x)
    return numpy.maximum(x, 0) + (len(calls) > 2), lambda dy: dy * (x > 0)
"""


@pytest.mark.slow
def test_a_failure_that_depends_on_an_earlier_call_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(STATE)
    assert main(["verify", "mine.py", "--only", "relu"]) == 1
    text = capsys.readouterr().out
    assert "alone this case passes: it fails after an earlier call, of which something is left" in text
    assert "$ refllm verify mine.py --only relu\n" in text
    (tmp_path / "mine.py").write_text(STATE.replace("(len(calls) > 2)", "1"))
    assert main(["verify", "mine.py", "--only", "relu"]) == 1
    text = capsys.readouterr().out
    assert "alone this case passes" not in text
    assert "$ refllm verify mine.py --only FFN/relu-" in text


WITH_THE_DTYPE_OF_AN_ARGUMENT = """
import numpy
def packed_positions(*, borders, places):
    found = numpy.zeros(places, borders.dtype)
    for first, end in zip(borders[:-1], borders[1:]):
        found[first:end] = numpy.arange(end - first)
    return found
"""


def test_integers_with_the_dtype_of_an_argument_are_integers(adapter: Adapter, golden: corpus.Corpus) -> None:
    """A dtype that came through a pipe is equal to NumPy's own, and another object."""
    cases = [case for case in golden.cases.values() if case.operation == "packed_positions"]
    found = list(runner.run(adapter(WITH_THE_DTYPE_OF_AN_ARGUMENT), cases, "float64", golden.C))
    assert len(found) > 3
    assert {r.status for r in found} == {"pass"}
    assert isinstance(frames.sendable(Response({"y": numpy.arange(3.0).astype(">f8")}, None, {})).outputs["y"], Foreign)
