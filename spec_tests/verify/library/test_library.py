"""A shared library under test: right functions pass, and what they write where they must not is said."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.cli import main
from refllm.errors import UserError
from refllm.verify import corpus, laws, runner
from refllm.verify.library import Library, header, interfaces
from refllm.verify.library.header import backward, forward
from refllm.verify.runner import Result
from spec_tests.verify.test_external import gone, noted

pytestmark = pytest.mark.tools

KIT = Path(__file__).resolve().parents[3] / "scripts" / "kits" / "c" / "kernel.c"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-shared", "-fPIC")

RELU = """
#include <stdlib.h>
#include "refllm.h"
static int64_t size(const refllm_tensor *x) {
    int64_t n = 1;
    for (int a = 0; a < x->axes; a++) n *= x->shape[a];
    return n;
}
static int contiguous(const refllm_tensor *x) {
    int64_t step = 1;
    for (int a = x->axes - 1; a >= 0; step *= x->shape[a], a--)
        if (x->shape[a] > 1 && x->strides[a] != step) return 0;
    return 1;
}
static int usable(const refllm_tensor *x) { return x->dtype == REFLLM_FLOAT64 && (UNLESS contiguous(x)); }
int refllm_relu(const refllm_tensor *x, refllm_tensor *y) {
    if (!usable(x)) return 1;
    double *in = x->data, *out = y->data;
    int64_t n = size(x);
    for (int64_t i = 0; i < n; i++) out[i] = in[i] > 0 ? in[i] : 0;
    FORWARD
    return 0;
}
int refllm_relu_back(const refllm_tensor *x, const refllm_tensor *y, const refllm_tensor *dy, refllm_tensor *dx) {
    if (!usable(x) || !usable(dy)) return 1;
    double *in = x->data, *up = dy->data, *out = dx->data;
    int64_t n = size(x);
    (void)y;
    for (int64_t i = 0; i < n; i++) out[i] = in[i] > 0 ? up[i] : 0;
    BACKWARD
    return 0;
}
"""

# (FORWARD, BACKWARD, UNLESS, what the report must say)
MISTAKES = {
    "writes behind the end": ("out[n] = 1;", "", "", "memory behind y is written to, up to 8 bytes behind its end"),
    "writes before the start": ("out[-2] = 1;", "", "", "memory before y is written to, up to 16 bytes before its"),
    "writes behind an input": ("in[n + 3] = 1;", "", "", "memory behind x is written to, up to 32 bytes behind"),
    "changes its input": ("in[0] = 7;", "", "", "the input x is changed by the call: x[0"),
    "changes the cotangent": ("", "up[0] = 7;", "", "the input dy is changed by the call: dy[0"),
    "writes behind a gradient": ("", "out[n] = 1;", "", "memory behind dx is written to"),
    "does not read strides": ("", "", "1 ||", "layout of memory: given "),
    "crashes": ("*(volatile int *)0 = 1;", "", "", "relu: the process was ended by SIG"),
    "hangs": ("for (volatile int i = 1; i;) {}", "", "", "was stopped after "),
    "fails": ("if (n) return 9;", "", "", "refllm_relu returned 9"),
    "exits": ("exit(0);", "", "", "relu: the process ended with status 0"),
}  # fmt: skip

Compiled = Callable[..., Path]


@pytest.fixture
def compiled(tmp_path: Path, golden: corpus.Corpus) -> Compiled:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: there is no cc on the path")
    known = interfaces(golden.cases.values())
    (tmp_path / "refllm.h").write_text(header(known.values(), golden.spec_version))

    def compile(source: str, *flags: str) -> Path:
        (tmp_path / "kernel.c").write_text(source)
        places = ["-o", str(tmp_path / "libkernel.so"), str(tmp_path / "kernel.c"), "-lm"]
        words = [str(compiler), *STRICT, *flags, *places]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return tmp_path / "libkernel.so"

    return compile


@pytest.fixture
def opened(golden: corpus.Corpus) -> Iterator[Callable[..., Library]]:
    made = list[Library]()

    def open_library(path: Path, timeout: float = 20) -> Library:
        made.append(Library(path, interfaces(golden.cases.values()), {}, timeout, alone=True))
        return made[-1]

    yield open_library
    for each in made:
        each.close()


def relu(forward: str = "", backward: str = "", unless: str = "") -> str:
    return RELU.replace("FORWARD", forward).replace("BACKWARD", backward).replace("UNLESS", unless)


def verified(mine: Library, golden: corpus.Corpus, dtype: str = "float64", *names: str) -> list[Result]:
    cases = [case for case in golden.cases.values() if case.operation in (names or mine.operations)]
    results = list(runner.run(mine, cases, dtype, golden.C))
    return list(laws.held(mine, results, dtype, golden.C, 1e3))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_functions_of_the_kit_are_right_and_break_no_law(
    compiled: Compiled, opened: Callable[..., Library], golden: corpus.Corpus, dtype: str
) -> None:
    results = verified(opened(compiled(KIT.read_text(encoding="utf-8"))), golden, dtype)
    assert {result.status for result in results} == {"pass"}
    assert {result.case.operation for result in results} == {"softmax", "layer_norm", "attention"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_a_function_does_wrong_is_said(
    compiled: Compiled, opened: Callable[..., Library], golden: corpus.Corpus, mistake: str
) -> None:
    *parts, says = MISTAKES[mistake]
    source = relu(*parts)
    mine = opened(compiled(source), 0.5 if mistake == "hangs" else 20)
    cases = [golden.cases[name] for name in ("FFN/relu-grid", "FFN/relu-matrix")]
    results = list(laws.held(mine, list(runner.run(mine, cases, "float64", golden.C)), "float64", golden.C, 1e3))
    said = [line for r in results for line in [r.reason, *(f"{law.name}: {law.message}" for law in r.broken)]]
    assert any(says in line for line in said), said
    assert any(result.failed for result in results)


def test_a_function_that_takes_contiguous_arrays_alone_says_so_and_passes(
    compiled: Compiled, opened: Callable[..., Library], golden: corpus.Corpus
) -> None:
    results = verified(opened(compiled(relu())), golden)
    assert {result.status for result in results} == {"pass"}


def test_without_a_gradient_it_is_the_value_alone(
    compiled: Compiled, opened: Callable[..., Library], golden: corpus.Corpus
) -> None:
    source = relu().partition("int refllm_relu_back")[0]
    assert {r.status for r in verified(opened(compiled(source)), golden)} == {"value"}
    refusing = relu().replace("if (!usable(x) || !usable(dy)) return 1;", "if (x) return 1;")
    assert {r.status for r in verified(opened(compiled(refusing)), golden)} == {"value"}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is filled by glibc")
@pytest.mark.parametrize("size", [64, 800, 5000])
def test_scratch_that_was_never_zeroed_is_found(
    compiled: Compiled, opened: Callable[..., Library], golden: corpus.Corpus, size: int
) -> None:
    scratch = f"volatile double *s = malloc({size}); out[0] += -1e3 < s[4] && s[4] < 1e3 ? 0 : s[4]; free((void *)s);"
    path = compiled(relu(scratch), "-Wno-maybe-uninitialized", "-Wno-uninitialized")
    said = [law.name for r in verified(opened(path), golden) for law in r.broken]
    assert "memory that was never written" in said


def test_places_that_are_not_written_are_counted(
    compiled: Compiled, opened: Callable[..., Library], golden: corpus.Corpus
) -> None:
    source = relu().replace("int64_t n = size(x);", "int64_t n = size(x) - 2;")
    [result] = runner.run(opened(compiled(source)), [golden.cases["FFN/relu-grid"]], "float64", golden.C)
    count = golden.cases["FFN/relu-grid"].inputs["x"].size
    assert any(f"y is not written in 2 of {count} places, the first of them y[" in law.message for law in result.laws)


def test_two_bytes_carry_bfloat16_and_float16(
    compiled: Compiled, opened: Callable[..., Library], golden: corpus.Corpus
) -> None:
    source = """
#include <string.h>
#include "refllm.h"
int refllm_repeat_heads(const refllm_tensor *k, int64_t groups, refllm_tensor *y) {
    if (k->dtype != REFLLM_BFLOAT16 && k->dtype != REFLLM_FLOAT16) return 1;
    const int64_t *n = k->shape + k->axes - 2, *step = k->strides;
    if (k->axes != 3 || step[2] != 1 || step[1] != n[1] || step[0] != n[0] * n[1]) return 1;
    for (int64_t g = 0; g < k->shape[0] * groups; g++)
        memcpy((char *)y->data + g * n[0] * n[1] * 2, (char *)k->data + g / groups * n[0] * n[1] * 2, n[0] * n[1] * 2);
    return 0;
}
"""
    mine = opened(compiled(source))
    for dtype in ("bfloat16", "float16"):
        found = [r for r in verified(mine, golden, dtype) if r.case.inputs["k"].ndim == 3]
        assert [r.status for r in found] == ["value"] * 3


def test_every_kind_of_argument_arrives(
    compiled: Compiled, opened: Callable[..., Library], golden: corpus.Corpus
) -> None:
    """A tree by the names of its tensors, several results, a number that may be missing, a word."""
    source = """
#include <stdio.h>
#include <string.h>
#include "refllm.h"
static char said[400];
const char *refllm_message(void) { return said; }
int refllm_feed_forward(const refllm_tensor *x, const refllm_tensor *p, int64_t p_count, const char *activation,
    refllm_tensor *y) {
    sprintf(said, "%s of %d axes, %d of p, the first %s, y %ld", activation, x->axes, (int)p_count, p->name,
            (long)y->shape[y->axes - 1]);
    return 5;
}
int refllm_heads(const refllm_tensor *x, const refllm_tensor *W, const refllm_tensor *b, int64_t heads, int64_t parts,
    refllm_tensor *y, int64_t y_count) {
    (void)x, (void)W, (void)b;
    sprintf(said, "%ld heads, %ld parts, %ld results, the last %s", (long)heads, (long)parts, (long)y_count,
            y[y_count - 1].name);
    return 5;
}
int refllm_cross_entropy(const refllm_tensor *logits, const refllm_tensor *targets, const int64_t *ignore,
    const char *reduction, refllm_tensor *y) {
    (void)logits, (void)y;
    sprintf(said, "dtype %d, ignore %ld, %s", targets->dtype, ignore ? (long)*ignore : 99L, reduction);
    return 5;
}
"""
    mine = opened(compiled(source))
    wanted = {
        "FFN/relu": "relu of 3 axes, 4 of p, the first W1, y ",
        "MHA/split": "heads, 3 parts, 3 results, the last y2",
        "CE/ignore-mean": "dtype 6, ignore -",
        "CE/mean": "dtype 6, ignore 99, mean",
    }
    cases = [case for case in golden.cases.values() if case.operation in mine.operations]
    said = {r.case.id: r.reason for r in runner.run(mine, cases, "float64", golden.C)}
    for words in wanted.values():
        assert any(words in reason for reason in said.values()), (words, said)


def test_the_interface_is_that_of_every_case(golden: corpus.Corpus) -> None:
    """What a case gives fits what its function declares, and no two parameters of a function have one name."""
    known = interfaces(golden.cases.values())
    assert {"layer_norm", "attention", "adamw", "lstm", "transformer_layer", "cross_entropy"} <= set(known)
    for interface in known.values():
        for parameters in (forward(interface), backward(interface)):
            names = [parameter.replace("*", " ").split()[-1] for parameter in parameters]
            assert len(set(names)) == len(names), interface.operation
    numbers = {"float": (int, float), "int": (int,), "bool": (bool,), "text": (str,), "tensor": (numpy.ndarray,)}
    for case in golden.cases.values():
        if case.operation in known and 1 <= case.level <= 3:
            kinds = dict(known[case.operation].keywords)
            for name, x in case.keywords.items():
                assert (x is None and kinds[name].endswith("?")) or isinstance(x, numbers[kinds[name].rstrip("?")])


@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_compiles_without_a_warning(language: str, tmp_path: Path, capsys: Any) -> None:
    compiler = shutil.which("cc" if language == "c" else "c++")
    if compiler is None:
        pytest.skip(f"no compiler of {language} on the path")
    assert main(["verify", "--header", str(tmp_path / "refllm.h")]) == 0
    (tmp_path / "empty.c").write_text('#include "refllm.h"\nint x;\n')
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-x", language, "-c", "-o", str(tmp_path / "empty.o")]
    done = subprocess.run([compiler, *strict, tmp_path / "empty.c"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert main(["verify", "--header", str(tmp_path / "refllm.h")]) == 0  # ours is replaced
    assert main(["verify", "--header", str(tmp_path / "empty.c")]) == 2  # theirs is not


def test_a_library_that_cannot_be_used_is_one_line(
    compiled: Compiled, opened: Callable[..., Library], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no such file"):
        opened(tmp_path / "nothing.so")
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(UserError, match="cannot be loaded"):
        opened(tmp_path / "text.so")
    with pytest.raises(UserError, match="exports no function of the header"):
        opened(compiled("int layer_norm(void) { return 0; }"))


def test_what_a_library_starts_is_ended_with_it(
    compiled: Compiled, opened: Callable[..., Library], golden: corpus.Corpus, tmp_path: Path
) -> None:
    source = relu('if (!fork()) { FILE *f = fopen("%s", "w"); fprintf(f, "%%d", getpid()); fclose(f); sleep(60); }')
    note = tmp_path / "pid"
    source = "#define _GNU_SOURCE\n#include <stdio.h>\n#include <unistd.h>\n" + source.replace("%s", str(note), 1)
    mine = opened(compiled(source.replace("%%", "%")))
    mine.respond(golden.cases["FFN/relu-grid"], "float64")
    pid = noted(note)
    mine.close()
    assert gone(pid)
