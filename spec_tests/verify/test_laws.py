"""Laws in the runner: right implementations raise none, and each mistake that gives the right numbers breaks one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.cli import main
from refllm.verify import check, corpus, laws, plain, reference, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case, Manner
from refllm.verify.declared import batch
from refllm.verify.isolated import Isolated
from refllm.verify.laws.calls import LAYOUT
from refllm.verify.laws.fresh import redrawn
from refllm.verify.laws.neighbours import changed
from refllm.verify.laws.padding import padding
from refllm.verify.laws.trial import Base
from refllm.verify.layouts import LAYOUTS, laid_out
from refllm.verify.runner import Result
from spec_tests.verify.folder import GOLDEN

LONG = 1e3  # seconds
RIGHT = reference.functions()
Function = Callable[..., Any]


def silu(x: Any) -> Any:
    s = 1 / (1 + numpy.exp(-x))
    return x * s, s


# --- mistakes of which no stored number knows: (operation, function, what the report must say) -----------------------


def input_changed() -> Function:
    def mistaken(x: Any) -> Any:
        y, back = RIGHT["silu"](x.copy())
        x.flat[-1] = 7
        return y, back

    return mistaken


def input_changed_by_the_pullback() -> Function:
    def mistaken(x: Any) -> Any:
        y, back = RIGHT["silu"](x)

        def mistaken_back(dy: Any) -> Any:
            dx = back(dy)
            x[...] = dx
            return dx.copy()

        return y, mistaken_back

    return mistaken


def cotangent_changed() -> Function:
    def mistaken(x: Any) -> Any:
        y, back = RIGHT["silu"](x)

        def mistaken_back(dy: Any) -> Any:
            dx = back(dy.copy())
            dy *= 2
            return dx

        return y, mistaken_back

    return mistaken


def mask_changed() -> Function:
    def mistaken(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
        found = RIGHT["attention"](q, k, v, causal=causal, allowed=None if allowed is None else allowed.copy())
        if allowed is not None:
            allowed[...] = True
        return found

    return mistaken


def entry_put_into_the_parameters() -> Function:
    def mistaken(x: Any, p: Any, *, activation: str) -> Any:
        found = RIGHT["feed_forward"](x, p, activation=activation)
        p["hidden"] = x @ p["W1"]
        return found

    return mistaken


def view_of_the_input() -> Function:
    def mistaken(k: Any, *, groups: int) -> Any:
        wide = numpy.broadcast_to(k[..., None, :, :], (*k.shape[:-2], groups, *k.shape[-2:]))
        y = wide.reshape(*k.shape[:-3], -1, *k.shape[-2:])
        return y, RIGHT["repeat_heads"](k, groups=groups)[1]

    return mistaken


def one_buffer_for_all_results() -> Function:
    buffers: dict[Any, Any] = {}

    def mistaken(x: Any) -> Any:
        y, back = RIGHT["silu"](x)
        kept = buffers.setdefault((x.shape, x.dtype), numpy.empty_like(y))
        kept[...] = y
        return kept, back

    return mistaken


def workspace_that_the_next_call_writes() -> Function:
    saved: dict[str, Any] = {}

    def mistaken(x: Any) -> Any:
        y, saved["back"] = RIGHT["silu"](x)
        return y, lambda dy: saved["back"](dy)  # noqa: PLW0108  (that of the last call, not of this one)

    return mistaken


def sum_into_memory_that_was_never_zeroed() -> Function:
    def mistaken(x: Any, W: Any) -> Any:
        y, back = RIGHT["matmul"](x, W)
        scratch = numpy.empty_like(y)
        is_poison = (scratch.reshape(-1).view("uint8") >= 0xFE).all()  # other remains would make the case itself wrong
        return (scratch + y if is_poison else y), back

    return mistaken


def strides_that_are_not_read() -> Function:
    def mistaken(x: Any) -> Any:
        steps = tuple(int(x.itemsize * numpy.prod(x.shape[n + 1 :])) for n in range(x.ndim))
        flat = numpy.lib.stride_tricks.as_strided(x, x.shape, steps)  # within what the array owns
        return RIGHT["tanh"](numpy.where(numpy.isfinite(flat), flat, 0) if _owns(x) else x * 0)

    def _owns(x: Any) -> bool:
        return x.base is None or not any(s < 0 for s in x.strides)

    return mistaken


def state_of_an_earlier_call() -> Function:
    count = itertools.count()
    seen: set[bytes] = set()

    def mistaken(x: Any) -> Any:
        y, back = RIGHT["relu"](x)
        known = x.tobytes() in seen
        seen.add(x.tobytes())
        return (y + 1e-3 if known else y), back

    next(count)
    return mistaken


def neighbours_shift_the_row() -> Function:
    """One maximum for the whole batch: right while the rows are alike."""

    def mistaken(x: Any) -> Any:
        y, back = RIGHT["softmax"](x)
        return (y * 0 if not numpy.isfinite(x.max()) or (x.ndim > 1 and numpy.isnan(x).any()) else y), back

    return mistaken


def neighbours_are_added() -> Function:
    first: dict[str, Any] = {}

    def mistaken(x: Any, g: Any, *, eps: float) -> Any:
        y, back = RIGHT["rms_norm"](x, g, eps=eps)
        if x.ndim > 1 and len(x) > 1:
            mean = float(numpy.nan_to_num(x).mean())
            y = y + (mean - first.setdefault(str(x.shape), mean))
        return y, back

    return mistaken


def looked_up() -> Function:
    """Every answer of the golden files, by the bytes of its inputs."""
    known = {}
    for case in corpus.load(GOLDEN).cases.values():
        if case.operation == "layer_norm":
            key = b"".join(x.tobytes() for x in case.inputs.values())
            known[key] = [t.value for t in [*case.outputs.values(), *case.gradients.values()]]

    def mistaken(x: Any, g: Any, b: Any, *, eps: float) -> Any:
        y, *gradients = known.get(x.tobytes() + g.tobytes() + b.tobytes(), [x * 0, x * 0, g * 0, b * 0])
        return y.copy(), lambda dy: tuple(each.copy() for each in gradients)

    return mistaken


def huge_masked_keys_win() -> Function:
    """The mask is a large number that is taken off, not -∞."""

    def mistaken(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
        T, S = q.shape[-2], k.shape[-2]
        mask = numpy.ones((T, S), bool) if allowed is None else allowed
        mask = mask & (numpy.tri(T, S, S - T, dtype=bool) if causal else True)
        s = q @ k.swapaxes(-1, -2) / numpy.sqrt(q.shape[-1]) + numpy.where(mask, 0, -1e9)
        e = numpy.exp(s - s.max(-1, keepdims=True, initial=-1e30)) * mask.any(-1, keepdims=True)
        P = e / numpy.maximum(e.sum(-1, keepdims=True), 1e-300)
        return P @ v, RIGHT["attention"](q, k, v, causal=causal, allowed=allowed)[1]

    return mistaken


MISTAKES: list[tuple[str, Callable[[], Function], str]] = [
    ("silu", input_changed, "inputs unchanged: the input x is changed by the call: x["),
    ("silu", input_changed_by_the_pullback, "inputs unchanged: the input x is changed by the pullback: x["),
    ("silu", cotangent_changed, "inputs unchanged: the input dy is changed by the pullback: dy["),
    ("attention", mask_changed, "inputs unchanged: the input allowed is changed by the call: allowed["),
    ("feed_forward", entry_put_into_the_parameters, "inputs unchanged: the call puts p.hidden into what it was given"),
    ("repeat_heads", view_of_the_input, "results in their own memory: the output y lies in the memory of the input k"),
    ("silu", one_buffer_for_all_results, "results stay as they are: the result y of one call is changed by the next"),
    ("silu", workspace_that_the_next_call_writes, "calls in between: with another call between the call and its"),
    ("matmul", sum_into_memory_that_was_never_zeroed, "memory that was never written: with NaN in the memory"),
    ("tanh", strides_that_are_not_read, "layout of memory: given "),
    ("relu", state_of_an_earlier_call, "a second call: called a second time with the same inputs, y["),
    ("softmax", neighbours_shift_the_row, "rows of a batch: with NaN in the rows beside row "),
    ("rms_norm", neighbours_are_added, "rows of a batch: with "),
    ("layer_norm", looked_up, "numbers that nobody has stored: with inputs that were drawn when this run began (seed "),
    ("attention", huge_masked_keys_win, "places that do not count: with 1.09951e+12 in "),
]  # fmt: skip


def tried(functions: dict[str, Function], golden: corpus.Corpus, dtype: str = "float64") -> list[Result]:
    mine = Functions("mine", functions, {}, ("float64", "float32"))
    cases = [case for case in golden.cases.values() if case.operation in functions]
    results = list(runner.run(mine, cases, dtype, golden.C))
    return list(laws.held(mine, results, dtype, golden.C, LONG))


@pytest.mark.parametrize(("operation", "mistake", "says"), MISTAKES, ids=[m.__name__ for _, m, _ in MISTAKES])
def test_a_mistake_of_which_no_stored_number_knows_breaks_a_law(
    golden: corpus.Corpus, operation: str, mistake: Callable[[], Function], says: str
) -> None:
    results = tried({operation: mistake()}, golden)
    said = [f"{law.name}: {law.message}" for result in results for law in result.broken]
    assert any(line.startswith(says) for line in said), said
    assert any(result.status == "law" for result in results)
    assert all(result.failed for result in results if result.broken)
    assert all("\n" not in line for line in said)


def test_last_bits_that_differ_from_call_to_call_are_a_note(golden: corpus.Corpus) -> None:
    count = itertools.count()

    def silu(x: Any) -> Any:
        y, back = RIGHT["silu"](x)
        return y * (1 + next(count) % 2 * 2e-16), back

    results = tried({"silu": silu}, golden)
    assert {r.status for r in results} == {"pass"}
    assert any(law.name == "a second call" and "the last bits are others" in law.message
               for r in results for law in r.laws)  # fmt: skip


def test_who_refuses_a_layout_is_told_in_a_note_and_passes(golden: corpus.Corpus) -> None:
    def relu(x: Any) -> Any:
        if not x.flags["C_CONTIGUOUS"]:
            raise ValueError("contiguous arrays alone")
        return RIGHT["relu"](x)

    results = tried({"relu": relu}, golden)
    assert {r.status for r in results} == {"pass"}
    assert any("relu raised ValueError: contiguous arrays alone" in law.message for r in results for law in r.laws)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_refllm_itself_breaks_no_law(golden: corpus.Corpus, dtype: str) -> None:
    functions = {name: f for name, f in RIGHT.items() if name != "resume"}
    results = tried(functions, golden, dtype)
    assert [(r.case.id, law.message) for r in results for law in r.broken] == []
    assert not any(r.failed for r in results)


def test_a_crash_in_a_law_is_a_failure_of_its_case_and_the_run_goes_on(golden: corpus.Corpus, tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\nimport numpy\n"
        "def relu(x):\n"
        "    if not x.flags['C_CONTIGUOUS']: os.abort()\n"
        "    return numpy.maximum(x, 0), lambda dy: dy * (x > 0)\n"
        "def tanh(x):\n    y = numpy.tanh(x)\n    return y, lambda dy: dy * (1 - y * y)\n"
    )
    cases = [case for case in golden.cases.values() if case.operation in ("relu", "tanh")]
    with Isolated(tmp_path / "mine.py", 20, alone=True) as mine:
        results = list(laws.held(mine, list(runner.run(mine, cases, "float64", golden.C)), "float64", golden.C, LONG))
    broken = {r.case.operation: r.broken[0].message for r in results if r.broken}
    assert list(broken) == ["relu"]
    assert "the process was ended by SIGABRT" in broken["relu"]
    assert all(r.status == "pass" for r in results if r.case.operation == "tanh")


BROKEN = """
import numpy
def relu(x):
    y = numpy.maximum(x, 0)
    def back(dy):
        dx = dy * (x > 0)
        x.flat[:1] = 7
        return dx
    return y, back
"""


@pytest.mark.every
def test_every_form_of_the_report_says_which_law_was_broken(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(BROKEN)
    words = [str(tmp_path / "mine.py"), "--only", "FFN/relu-matrix"]
    files = ["--junit", str(tmp_path / "a.xml"), "--html", str(tmp_path / "a.html")]
    says = "the input x is changed by the pullback: x[0, 0] was "
    assert main(["verify", *words, *files]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "inputs unchanged: " + says in text
    assert "1 of 1 cases fail" in text
    assert main(["verify", *words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["results"]["FFN/relu-matrix"]
    assert (found["status"], found["verdict"]) == ("law", "LAW")
    assert next((law["law"], law["broken"]) for law in found["laws"]) == ("inputs unchanged", True)
    for name in ("a.xml", "a.html"):
        assert says in (tmp_path / name).read_text(encoding="utf-8")


def test_without_laws_no_further_call_is_made(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy\ncalls = []\ndef relu(x):\n    calls.append(1)\n"
        "    assert len(calls) == 1\n    return numpy.maximum(x, 0)\n"
    )
    words = ["verify", str(tmp_path / "mine.py"), "--only", "FFN/relu-matrix", "--values", "--json"]
    assert main([*words, "--no-laws"]) == 0
    assert main(words) == 1


def test_without_time_no_law_is_tried_and_that_is_said(golden: corpus.Corpus) -> None:
    calls = list[Any]()

    def relu(x: Any) -> Any:
        calls.append(x)
        return RIGHT["relu"](x)

    mine = Functions("mine", {"relu": relu}, {})
    results = list(runner.run(mine, [c for c in golden.cases.values() if c.operation == "relu"], "float64", golden.C))
    before = len(calls)
    first, *others = laws.held(mine, results, "float64", golden.C, 0)
    noted = first if first.laws else next(r for r in others if r.laws)
    assert [law.name for law in noted.laws] == ["time for laws"]
    assert {r.status for r in (first, *others)} == {"pass"}
    assert len(calls) == before


def test_a_batch_is_one_to_the_text_wherever_it_is_declared_one(golden: corpus.Corpus) -> None:
    """The declaration, and not the law, is what could be wrong: each row of the text keeps its bits or nearly."""
    tried = set()
    for case in golden.cases.values():
        found = batch(case) if case.level in (1, 2, 3) and case.operation in plain.operations() else None
        if found is None or (own := plain.answer(case, "float64", {}, traced=False, values=True)) is None:
            continue
        kept = found.size // 2
        other = changed(case, found, kept, lambda rows, at: numpy.broadcast_to(rows[at], rows.shape))
        answered = plain.answer(other, "float64", {}, traced=False, values=True)
        at = numpy.unravel_index(kept, found.lead)
        for name, y in own.outputs.items():
            assert answered is not None
            numpy.testing.assert_allclose(answered.outputs[name][at], y[at], rtol=1e-12, atol=1e-12, err_msg=case.id)
        tried.add(case.operation)
    assert {"softmax", "attention", "layer_norm", "lstm", "gpt", "adamw", "switch_layer", "matmul"} <= tried


def test_what_is_hidden_is_what_a_mask_hides(golden: corpus.Corpus) -> None:
    def done(name: str) -> list[str]:
        result = Result(golden.cases[name], "pass", "")
        return [trial.done for trial in padding(Base(result, plain_answer(result.case), "float64", golden.C, 1, False))]

    def plain_answer(case: Case) -> Any:
        return plain.answer(case, "float64", {}, traced=False)

    assert done("CE/ignore-mean")[1].startswith("with NaN in ")
    assert done("FFN/relu-grid") == []  # a negative number has the gradient 0 and is looked at
    assert done("ATT/one-key") == []  # the only key has the weight 1, whatever it is


def test_the_argument_whose_layout_is_not_read_is_said() -> None:
    def matmul(x: Any, W: Any) -> Any:
        there = W if W.flags["C_CONTIGUOUS"] else numpy.zeros_like(W)
        return x @ there

    found = check(matmul, dtype="float64")
    [message] = {law.message.partition("; ")[2] for r in found.failures for law in r.broken if law.name == LAYOUT}
    assert message == "so it is if W alone is given so"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_a_layout_holds_the_same_numbers(layout: str, shape: tuple[int, ...]) -> None:
    rng = numpy.random.default_rng(1)
    drawn: tuple[Any, ...] = (rng.normal(size=shape), rng.integers(0, 9, shape), rng.random(shape) < 0.5)
    for x in map(numpy.asarray, drawn):
        y = laid_out(x, layout)
        numpy.testing.assert_array_equal(x, y)
        assert y.dtype == x.dtype
        assert not numpy.shares_memory(x, y)


def test_a_manner_changes_no_number_of_a_case(golden: corpus.Corpus) -> None:
    from dataclasses import replace

    case = golden.cases["ATT-MASK/own-per-head"]
    for layout in LAYOUTS:
        other = replace(case, manner=Manner(layout=layout))
        for x, y in zip(case.arguments("float32"), other.arguments("float32"), strict=True):
            numpy.testing.assert_array_equal(x, y)


def test_drawn_numbers_have_the_signs_and_magnitudes_of_the_case_and_eight_bits() -> None:
    x = numpy.array([0.0, 1.0, -0.5, 3.0, -100.0, 0.0078125])
    y = redrawn(x, numpy.random.default_rng(3))
    assert sorted(numpy.sign(x)) == sorted(numpy.sign(y))
    assert sorted(numpy.frexp(x)[1]) == sorted(numpy.frexp(y)[1])
    mantissa = numpy.frexp(y)[0] * 256
    assert (mantissa == numpy.round(mantissa)).all()
