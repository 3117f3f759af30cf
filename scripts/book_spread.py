"""The predicted spread beside the error of PyTorch's kernels, for the book: `scripts/book_data.py spread`.

It needs a Python that has torch, pytest and hypothesis. The operations and their sizes are those of
spec_tests/numbers/test_spread.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy

from refllm.numbers.spread import deviation, lift
from refllm.verify import adapter
from refllm.verify.keywords import from_adapter

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = tuple(4**n for n in range(2, 9))  # 16 ... 65,536
PAIRS = 256  # products of vectors, whose errors are averaged


def spread() -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    return {"measured": f"torch {torch.__version__}, float32", "results": _results(), "products": _products(torch)}


def _results() -> list[dict[str, Any]]:
    """Root mean squares over the entries of each value and gradient, as shares of its own root mean square."""
    from spec_tests.numbers.test_spread import AT_SIZE, BLAS, OPERATIONS, TORCH, U, results

    functions = from_adapter(adapter.from_file(TORCH).functions)
    found = []
    for case, (operation, arrays, keywords) in AT_SIZE.items():
        if operation not in functions:
            continue
        with numpy.errstate(all="ignore"):
            predicted = results(OPERATIONS[operation](*lift(arrays, BLAS), **keywords), 7)
            given = results(functions[operation](*arrays, **keywords), 7)
        for number, (mine, y) in enumerate(zip(given, predicted, strict=True)):
            if not hasattr(y, "variance"):
                continue
            size = _rms(y.value)
            found.append({
                "case": case, "result": number, "predicted": _short(_rms(deviation(y, U)) / size),
                "observed": _short(_rms(numpy.asarray(mine, float) - y.value) / size),
            })  # fmt: skip
    return found


def _products(torch: Any) -> list[dict[str, Any]]:
    """Products of random vectors, by their length: the error of torch.dot, the spread, and the bound of all roundings
    together; root mean squares over the pairs."""
    from spec_tests.numbers.test_spread import BLAS, U

    found = []
    for n in LENGTHS:
        a, b = numpy.random.default_rng(n).standard_normal((2, PAIRS, n)).astype(numpy.float32)
        products = [float(torch.dot(torch.from_numpy(x), torch.from_numpy(y))) for x, y in zip(a, b, strict=True)]
        x, y = a.astype(float), b.astype(float)
        truth = (x * y).sum(axis=1)
        predicted = (lift(a[:, None, :], BLAS) @ lift(b[:, :, None], BLAS)).reshape(PAIRS)
        bound = U * (3 * abs(x * y).sum(axis=1) + abs(truth))
        found.append({
            "length": n, "observed": _short(_rms(numpy.array(products) - truth)),
            "predicted": _short(_rms(deviation(predicted, U))), "bound": _short(_rms(bound)),
        })  # fmt: skip
    return found


def _rms(x: Any) -> float:
    return float(numpy.sqrt((x * x).mean()))


def _short(x: float) -> float:
    return float(f"{x:.3g}")
