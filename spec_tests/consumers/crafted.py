"""Cases that the golden files do not hold: at the border of every tolerance, of nothing, and of NaN and infinity."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy

from refllm.spec.attention import attention
from refllm.spec.cross_entropy import cross_entropy
from refllm.spec.embedding import embedding
from refllm.spec.layer_norm import layer_norm
from refllm.spec.linear import linear, matmul
from refllm.spec.softmax import softmax
from refllm.verify.case import Truth
from refllm.verify.keywords import from_golden
from refllm.verify.tolerance import UNIT, ratios, tolerance
from spec_tests.consumers.consumer import GOLDEN, Consumer, failures, golden_file

NAN, INF = float("nan"), float("inf")
C = json.loads((GOLDEN / "MANIFEST.json").read_bytes())["calibration"]["C"]


def tensor(x: Any, dtype: str = "float64") -> dict[str, Any]:
    array = numpy.asarray(x, dtype)
    data = array.ravel().tolist()
    words = [x if dtype != "float64" or numpy.isfinite(x) else _word(x) for x in data]
    return {"dtype": dtype, "shape": list(array.shape), "data": words}


def _word(x: float) -> str:
    return "NaN" if numpy.isnan(x) else "Infinity" if x > 0 else "-Infinity"


def written(directory: Path, cases: list[dict[str, Any]]) -> Path:
    return golden_file(directory, json.dumps({"cases": cases}).encode())


# ---- The verdict


@dataclass(frozen=True)
class Judged:
    """An answer beside a truth. The answer is a row of a table: `embedding` gives it back as it is."""

    got: numpy.ndarray  # (1, N)
    truth: Truth

    def case(self, name: str) -> dict[str, Any]:
        truth = {"value": tensor(self.truth.value), "condition": tensor(self.truth.condition)}
        wide = {} if self.truth.wide is None else {"wide": {"outputs": {"y": tensor(self.truth.wide)}}}
        ids = numpy.zeros(len(self.got))
        return {
            "id": name, "operation": "embedding", "inputs": {"E": tensor(self.got if len(self.got) else [[1.0] * 3])},
            "keywords": {"ids": tensor(ids, "int64")}, "outputs": {"y": truth}, **wide,
        }  # fmt: skip

    def is_right(self, dtype: str) -> bool:
        if self.got.shape != self.truth.value.shape:
            return False
        return bool((ratios(self.got.astype(dtype), self.truth, dtype, C) <= 1).all())


def judged(dtype: str) -> Iterator[Judged]:
    """Answers just within the tolerance and just beyond, with and without a part of it that is formed in float64."""
    condition = numpy.full((1, 2), 1000.0)
    formed_in_float64 = 3 * condition * (UNIT[dtype] / UNIT["float64"])
    specials = (NAN, INF, -INF)
    for value, beside, wide in product((0.0, 1.0, -3.0, *specials), (64.0, *specials), (None, formed_in_float64)):
        near = value if numpy.isfinite(value) else 1.0
        row = numpy.array([[near, beside]])
        steps = [float(tolerance(Truth(row, condition, part), dtype, C)[0, 0]) for part in (None, formed_in_float64)]
        shifted = [near + share * step for share, step in product((0, 0.95, -0.95, 1.05, -1.05), steps)]
        truth = numpy.array([[value, beside]])
        for got in (*shifted, *specials):
            answer = numpy.array([[got, beside]])
            yield Judged(answer, Truth(truth, condition, wide))
            yield Judged(answer[:, ::-1], Truth(truth[:, ::-1], condition, wide))
    for shape in ((0, 3), (3, 0), (0, 4), (1, 3), (0,)):
        yield Judged(numpy.ones((0, 3)), Truth(numpy.ones(shape), numpy.ones(shape)))


def require_the_verdicts_of_the_verifier(program: Consumer, dtype: str, directory: Path) -> None:
    answers = {f"EMB/{i}": answer for i, answer in enumerate(judged(dtype))}
    wrong = {name for name, answer in answers.items() if not answer.is_right(dtype)}
    assert 10 < len(wrong) < len(answers) - 10
    done = program("check", written(directory, [answer.case(name) for name, answer in answers.items()]))
    assert failures(done) == wrong
    assert done.stdout.endswith(f"{len(answers) - len(wrong)} passed, {len(wrong)} failed, 0 skipped\n")
    assert (done.returncode, done.stderr) == (1, "")


# ---- The answers


@dataclass(frozen=True)
class Edge:
    operation: Callable[..., Any]
    inputs: dict[str, Any]
    keywords: dict[str, Any]

    def case(self, name: str) -> dict[str, Any]:
        """With the answers of the text."""
        inputs = {key: numpy.asarray(x, "float64") for key, x in self.inputs.items()}
        with numpy.errstate(all="ignore"):
            y, back = self.operation(*inputs.values(), **from_golden(self.keywords))
            cotangent = numpy.ones(y.shape)
            gradients = back(cotangent)
        every = gradients if isinstance(gradients, tuple) else (gradients,)
        return {
            "id": name, "operation": self.operation.__name__, "inputs": {k: tensor(x) for k, x in inputs.items()},
            "keywords": {k: _keyword(x) for k, x in self.keywords.items()}, "cotangents": {"y": tensor(cotangent)},
            "outputs": {"y": _truth(y)}, "gradients": dict(zip(inputs, map(_truth, every), strict=True)),
        }  # fmt: skip


def _keyword(x: Any) -> Any:
    return tensor(x, "bool" if x.dtype.kind == "b" else "int64") if isinstance(x, numpy.ndarray) else x


def _truth(x: Any) -> dict[str, Any]:
    return {"value": tensor(x), "condition": tensor(numpy.full(numpy.shape(x), 10.0))}


def zeros(*shape: int) -> Any:
    return numpy.zeros(shape)


def edges() -> Iterator[Edge]:
    rows = ([NAN, 1.0], [NAN, NAN], [INF, 1.0], [INF, INF], [-INF, 1.0], [-INF, -INF], [-INF, NAN], [INF, -INF])
    for row in rows:
        yield Edge(softmax, {"x": [row, [0.5, 2.0]]}, {})
        for target in (0, 1):
            targets = {"targets": numpy.array([target, 1]), "ignore": None, "reduction": "none"}
            yield Edge(cross_entropy, {"logits": [row, [0.5, 2.0]]}, targets)
        yield Edge(linear, {"x": [row], "W": [[1.0, 0.0], [0.5, -1.0]], "b": [0.25, row[0]]}, {})
        yield Edge(embedding, {"E": [row, [1.0, 2.0]]}, {"ids": numpy.array([1, 0, 1])})
    for shape in ((0, 4), (3, 0), (2, 0, 4), (2, 3, 0)):
        x = zeros(*shape)
        yield Edge(softmax, {"x": x}, {})
        yield Edge(layer_norm, {"x": x, "g": zeros(shape[-1]), "b": zeros(shape[-1])}, {"eps": 1e-5})
        yield Edge(matmul, {"x": x, "W": numpy.ones((shape[-1], 2))}, {})
        yield Edge(linear, {"x": x, "W": numpy.ones((shape[-1], 2)), "b": [1.0, 2.0]}, {})
        yield Edge(linear, {"x": x, "W": zeros(shape[-1], 0), "b": zeros(0)}, {})
        yield Edge(embedding, {"E": numpy.ones((3, 2))}, {"ids": numpy.zeros(shape, "int64")})
    for reduction in ("mean", "sum", "none"):
        no_rows = {"targets": numpy.zeros((2, 0), "int64"), "ignore": None, "reduction": reduction}
        yield Edge(cross_entropy, {"logits": zeros(2, 0, 4)}, no_rows)
    sizes = ((0, 2, 3, 2, 2), (2, 0, 3, 2, 2), (2, 2, 0, 2, 2), (2, 2, 3, 2, 0), (0, 0, 0, 2, 2), (2, 0, 0, 2, 0))
    for (B, T, S, D, E), causal in product(sizes, (False, True)):
        inputs = {"q": numpy.ones((B, T, D)), "k": numpy.ones((B, S, D)), "v": numpy.ones((B, S, E))}
        yield Edge(attention, inputs, {"causal": causal, "allowed": None})
        yield Edge(attention, inputs, {"causal": causal, "allowed": numpy.ones((B, 1, S), bool)})


def require_the_answers_to_edges(program: Consumer, directory: Path) -> None:
    cases = [edge.case(f"EDGE/{i}-{edge.operation.__name__}") for i, edge in enumerate(edges())]
    done = program("check", written(directory, cases))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(cases)} passed, 0 failed, 0 skipped\n", "")
