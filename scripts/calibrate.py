"""Measure the tolerance: the worst error that each correct implementation makes, in units of u (S + |t| + max|t|).

    python scripts/calibrate.py            prints a table; the factor C of golden/MANIFEST.json must stay above it
    python scripts/calibrate.py --only SDPA --dtype float16    the implementations whose name holds this

The implementations: refllm as it is; refllm with every sum in the reverse order; with every sum in a wider type; and,
where they are installed, PyTorch, JAX, ONNX Runtime and fused kernels (fused_kernels.py). A correct implementation that
is worse than the table is a reason to raise C. The units are the same in every precision; what a run allows in bfloat16
and float16 is less, and the last column has what is wrong in a run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from libraries import require  # noqa: E402  (from this checkout)

require(__doc__, "numpy")

import numpy  # noqa: E402

import fused_kernels  # noqa: E402  (beside this file)
from refllm.parameters import map_leaves  # noqa: E402  (from this checkout)
from refllm.verify import adapter, corpus, reference, runner, tolerance  # noqa: E402
from refllm.verify.case import Case  # noqa: E402


class Reversed(numpy.ndarray):
    """An array that adds in the reverse order, in matrix products and in sums."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **how: Any) -> Any:
        given = [_plain(x) for x in inputs]
        if ufunc is numpy.matmul and method == "__call__":
            result = self.product(*given)
        elif ufunc is numpy.add and method == "reduce":
            result = self.total(given[0], **how)
        else:
            outs = {} if out is None else {"out": tuple(_plain(x) for x in out)}
            result = getattr(ufunc, method)(*given, **how, **outs)
            return result.view(type(self)) if isinstance(result, numpy.ndarray) else result
        if out is not None:
            out[0][...] = result
            return out[0]
        return numpy.asarray(result).view(type(self))

    @staticmethod
    def product(a: Any, b: Any) -> Any:
        return a[..., ::-1] @ (b[::-1] if b.ndim == 1 else b[..., ::-1, :])

    @staticmethod
    def total(x: Any, **how: Any) -> Any:
        return numpy.add.reduce(numpy.flip(x, how.get("axis")), **how)


class Wide(Reversed):
    """An array whose matrix products and sums are added in a wider type and rounded once."""

    @staticmethod
    def product(a: Any, b: Any) -> Any:
        wide = _wider(a.dtype)
        return (a.astype(wide) @ b.astype(wide)).astype(a.dtype)

    @staticmethod
    def total(x: Any, **how: Any) -> Any:
        how.pop("dtype", None)
        return numpy.add.reduce(x, dtype=_wider(x.dtype), **how).astype(x.dtype)


def _plain(x: Any) -> Any:
    return x.view(numpy.ndarray) if isinstance(x, Reversed) else x


def _wider(dtype: Any) -> Any:
    return numpy.float64 if dtype == numpy.float32 else numpy.longdouble if dtype.kind == "f" else dtype


def summing(kind: type[Reversed]) -> adapter.Functions:
    """refllm with arrays of that kind in the place of its arguments."""

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arrays: Any, **keywords: Any) -> Any:
            returned = function(*_as(kind, arrays), **keywords)
            if not (isinstance(returned, tuple) and len(returned) > 1 and callable(returned[1])):
                return _over(_plain, returned)
            y, back = returned[:2]
            return _over(_plain, y), lambda *dy: _over(_plain, back(*_as(kind, dy)))

        return operation

    functions = {name: wrapped(function) for name, function in reference.functions().items() if name != "identity"}
    return adapter.Functions(kind.__name__, functions, {}, reference.DTYPES)


def _as(kind: type[Reversed], trees: tuple[Any, ...]) -> list[Any]:
    return [map_leaves(lambda x: x.view(kind), tree) for tree in trees]


def _over(f: Callable[[Any], Any], tree: Any) -> Any:
    return tuple(_over(f, x) for x in tree) if isinstance(tree, tuple) else map_leaves(f, tree)


def implementations() -> Iterator[tuple[str, adapter.Functions, tuple[str, ...]]]:
    """Name, implementation and dtypes of every one that is here."""
    yield "refllm (NumPy)", adapter.Functions("refllm", reference.functions(), {}), reference.DTYPES
    yield "NumPy, sums reversed", summing(Reversed), reference.DTYPES
    yield "NumPy, sums in a wider type", summing(Wide), reference.DTYPES
    for name, module in (("PyTorch", "torch"), ("JAX", "jax")):
        if fused_kernels.installed(module):
            found = _in_every_dtype(module)
            yield f"{name} {sys.modules[module].__version__}", found, found.dtypes
            yield from fused_kernels.of_torch(found) if module == "torch" else fused_kernels.of_jax(found)
    if fused_kernels.installed("onnxruntime"):
        os.environ["ONNX_BY"] = "runtime"
        yield "ONNX Runtime", _in_every_dtype("onnx"), ("float32", "float16")


def _in_every_dtype(name: str) -> adapter.Functions:
    found = adapter.from_file(ROOT / "scripts" / "adapters" / f"{name}_adapter.py")
    return adapter.Functions(name, found.functions, found.conventions, fused_kernels.EVERY, found.use_dtype)


def worst(implementation: adapter.Functions, cases: list[Case], dtype: str, C: float) -> tuple[int, float, str, str]:
    """Cases judged, the worst ratio with C = 1 of those that are right in a run with its case, and those that are not.

    Which cases a dtype can decide at all depends on C, so it is the manifest's that they are chosen with.
    """
    judged, largest, where, wrong = 0, 0.0, "", list[str]()
    for result in runner.run(implementation, cases, dtype, C):
        if result.failed:
            wrong.append(result.case.id)
        elif result.response is not None and result.ratio is not None:
            judged += 1
            largest, where = max((largest, where), (_ratio(result, dtype), result.case.id))
    return judged, largest, where, ", ".join(wrong)


def _ratio(result: runner.Result, dtype: str) -> float:
    """The worst error of an answer in units of u (S + |t| + max|t|)."""
    case, response, found = result.case, result.response, [0.0]
    assert response is not None
    for truths, given in ((case.outputs, response.outputs), (case.gradients, response.gradients or {})):
        for name in truths.keys() & given.keys():
            truth, y = replace(truths[name], most=None), numpy.asarray(given[name])
            if truth.condition is not None and y.dtype.kind == "f" and y.size:
                of_all = tolerance.ratios(y, truth, dtype, 1 / tolerance.SHARE[dtype])
                found.append(float(of_all.max()))
    return max(found)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the worst error of correct implementations.")
    parser.add_argument("--only", default="", metavar="TEXT", help="implementations whose name holds TEXT")
    parser.add_argument("--dtype", default="", help="this precision alone")
    chosen = parser.parse_args(arguments)
    golden = corpus.load(corpus.folder(None))
    cases = [case for case in golden.cases.values() if case.level > 0]
    print("| implementation | dtype | cases | worst, C = 1 | its case | wrong in a run |\n|---|---|---|---|---|---|")
    for name, implementation, dtypes in implementations():
        for dtype in dtypes if chosen.only in name else ():
            if chosen.dtype in ("", dtype):
                judged, ratio, where, wrong = worst(implementation, cases, dtype, golden.C)
                print(f"| {name} | {dtype} | {judged} | {ratio:.2f} | {where} | {wrong} |", flush=True)
    print(f"\nThe manifest has C = {golden.C:g}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
