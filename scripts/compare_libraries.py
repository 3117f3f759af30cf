"""Released libraries under `refllm verify`, as one table with their versions, and each limit that was found.

python scripts/compare_libraries.py                  every library that this Python has -> docs/data/libraries.json
python scripts/compare_libraries.py --only jax.nn    one of them; the others stay as they were measured
python scripts/compare_libraries.py --render         docs/libraries.md from what was measured

Laws are not tried, and no diagnosis is sought: the page says which cases are right.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
from libraries import require  # noqa: E402  (from this checkout)

require(__doc__, "numpy")
import numpy  # noqa: E402

from refllm.verify import corpus, runner  # noqa: E402
from refllm.verify.case import Case  # noqa: E402
from refllm.verify.isolated import Isolated  # noqa: E402
from refllm.verify.plugging import Plug  # noqa: E402
from refllm.verify.report import counts  # noqa: E402
from refllm.verify.runner import Result  # noqa: E402

DATA, PAGE = ROOT / "docs/data/libraries.json", ROOT / "docs/libraries.md"
ALL, TWO = ("float64", "float32", "float16", "bfloat16"), ("float64", "float32")
ADAPTERS = "scripts/adapters/"


@dataclass(frozen=True)
class Subject:
    """What is verified, of which packages, in which precisions."""

    name: str
    source: str
    packages: tuple[str, ...]
    signatures: str | None = None
    dtypes: tuple[str, ...] = TWO
    values: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        words = [*(f"{name}={value}" for name, value in self.environment.items()), "refllm verify", self.source]
        words += ["--signatures", self.signatures] if self.signatures and not self.source.endswith(".py") else []
        return " ".join([*words, *(["--values"] if self.values else [])])


def _keras(module: str) -> Subject:
    return Subject(module, module, ("keras", "torch"), "keras", environment={"KERAS_BACKEND": "torch"})


def _keras_on_jax(module: str) -> Subject:
    return Subject(f"{module} on JAX", module, ("keras", "jax"), "keras", environment={"KERAS_BACKEND": "jax"})


def _adapter(name: str, file: str, *packages: str, **how: Any) -> Subject:
    return Subject(name, f"{ADAPTERS}{file}_adapter.py", packages, **how)


SUBJECTS = [
    Subject("torch.nn.functional", "torch.nn.functional", ("torch",), "torch", ALL),
    Subject("torch.nn", "torch.nn", ("torch",), "torch", ALL),
    Subject("torch.optim", "torch.optim", ("torch",), "torch"),
    Subject("torch.nn.utils", "torch.nn.utils", ("torch",), "torch"),
    Subject("torch", "torch", ("torch",), "torch"),
    _adapter("torch.distributed", "torch_parallel", "torch"),
    Subject("jax.nn", "jax.nn", ("jax",), "jax", ("float64", "float32", "bfloat16")),
    Subject("jax.numpy", "jax.numpy", ("jax",), "jax"),
    Subject("flax.linen", "flax.linen", ("flax", "jax"), "jax", ("float32",)),  # it compiles each case
    Subject("optax", "optax", ("optax", "jax"), "jax"),
    *map(_keras, ("keras.ops", "keras.layers", "keras.losses", "keras.optimizers.schedules")),
    *map(_keras_on_jax, ("keras.ops", "keras.layers", "keras.losses")),
    Subject("ONNX reference", f"{ADAPTERS}onnx_operators.py", ("onnx",), "onnx", values=True),
    Subject("ONNX Runtime", f"{ADAPTERS}onnx_operators.py", ("onnxruntime", "onnx"), "onnx", values=True,
            environment={"ONNX_BY": "runtime"}),
    _adapter("transformers", "transformers", "transformers", "torch"),
    _adapter("tinygrad", "tinygrad", "tinygrad", environment={"DEV": "PYTHON"}),
    _adapter("scikit-learn", "sklearn", "scikit-learn", values=True),
    _adapter("SciPy", "scipy", "scipy", values=True),
]  # fmt: skip


def measured(subject: Subject, golden: corpus.Corpus) -> dict[str, Any]:
    """What became of the cases of a subject, in each of its precisions."""
    os.environ.update(subject.environment)
    found: dict[str, Any] = {"command": subject.command, "dtypes": {}, "limits": []}
    found["versions"] = {name: importlib.metadata.version(name) for name in subject.packages}
    with Isolated(Path(subject.source), 300.0, Plug(signatures=subject.signatures)) as implementation:
        cases = [case for case in golden.cases.values() if case.operation in implementation.operations]
        cases = [case.values_alone() for case in cases] if subject.values else cases
        for dtype in subject.dtypes:
            results = runner.settled(runner.run(implementation, cases, dtype, golden.C), dtype, golden.C)
            found["dtypes"][dtype] = counts(results)
            found["limits"] += list(_limits(results, dtype))
    for name in subject.environment:
        del os.environ[name]
    return found


def _limits(results: list[Result], dtype: str) -> Iterator[dict[str, Any]]:
    """Of each operation the first case that is wrong, with its input, and how many more there are."""
    wrong: dict[str, list[Result]] = {}
    for result in results:
        if result.failed:
            wrong.setdefault(result.case.operation, []).append(result)
    for operation, failures in wrong.items():
        first = min(failures, key=lambda r: (r.status == "convention", _size(r.case)))
        message = next((v.message for v in first.verdicts if v.wrong), first.reason)
        yield {
            "operation": operation, "dtype": dtype, "case": first.case.id, "status": first.status,
            "message": f"other convention: {first.reason}" if first.status == "convention" else message,
            "input": _input(first.case), "more": len(failures) - 1,
        }  # fmt: skip


def _size(case: Case) -> int:
    return sum(x.size for x in case.inputs.values())


def _input(case: Case) -> str:
    """The input in few words: all of a small one, the shape of a large one."""
    given = [(n, x) for n, x in {**case.inputs, **case.keywords}.items() if x is not None]
    return ", ".join(f"{name} = {_shown(x)}" for name, x in given)


def _shown(x: Any) -> str:
    if not isinstance(x, numpy.ndarray):
        return str(x)
    return str(x.tolist()) if x.size <= 8 else "×".join(map(str, x.shape))


def page(data: dict[str, Any]) -> str:
    """docs/libraries.md."""
    return "\n".join([_HEAD, *_table(data), *_missing(data), "", _MIDDLE, *_limits_table(data), ""])


_HEAD = """# Released libraries

What PyTorch, JAX, Flax, Optax, Keras, ONNX, transformers, tinygrad, scikit-learn and SciPy answer to the golden cases,
by the tables of signatures that are shipped or, where the command names a file, by an adapter. Right is how many are
right of those that were run; by value are those without a gradient, other those that differ by a convention or a
dtype. Operations that a library does not have are counted nowhere. `scripts/compare_libraries.py` measures and writes
this page; the command of each row shows the same in full, with the diagnosis.

What they answer at the sizes of kernels, in float32, bfloat16 and float16, and each limit that was found there with its
input, value and truth: [what right implementations need](conformance.md#the-limit-and-what-right-implementations-need).
"""

_MIDDLE = """## What is not right

Of each operation the smallest case that fails, with its input, in the first precision in which it does. Not all of it
is a mistake: a convention is a choice, and a product in bfloat16 inside an optimiser may be meant.
"""


def _table(data: dict[str, Any]) -> Iterator[str]:
    yield "| what | versions | precision | right | wrong | other | skipped | command |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, found in data.items():
        versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
        for dtype, n in found["dtypes"].items():
            ran = sum(n.values()) - n["skipped"]
            right = f"{n['passed'] + n['value_only']}/{ran}" if ran else "not run"
            by_value = f" ({n['value_only']} by value)" if n["value_only"] else ""
            other = n["dtype"] + n["convention"]
            cells = [name, versions, dtype, f"{right}{by_value}", n["failed"], other, n["skipped"]]
            yield f"| {' | '.join(map(str, cells))} | `{found['command']} --dtype {dtype}` |"


def _missing(data: dict[str, Any]) -> Iterator[str]:
    """What was not measured has these words and no number."""
    for subject in SUBJECTS:
        if subject.name not in data:
            yield f"| {subject.name} | | {', '.join(subject.dtypes)} | not measured | | | | `{subject.command}` |"


def _limits_table(data: dict[str, Any]) -> Iterator[str]:
    yield "| what | operation | precision | case | what is seen | input |"
    yield "|---|---|---|---|---|---|"
    for name, found in data.items():
        seen = set[str]()
        for limit in found["limits"]:
            if limit["operation"] in seen:
                continue
            seen.add(limit["operation"])
            more = f" and {limit['more']} more" if limit["more"] else ""
            cells = [name, f"`{limit['operation']}`", limit["dtype"], f"{limit['case']}{more}", limit["message"]]
            yield "| " + " | ".join(map(_cell, [*cells, limit["input"]])) + " |"


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
    return text if "`" not in text else text.replace("\\_", "_")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="only this one (may be repeated)")
    parser.add_argument("--render", action="store_true", help="write the page from what was measured")
    options = parser.parse_args(arguments)
    data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    if not options.render:
        golden = corpus.load(corpus.folder(None))
        for subject in SUBJECTS:
            if options.only and subject.name not in options.only:
                continue
            print(f"{subject.name} ...", file=sys.stderr, flush=True)
            found = measured(subject, golden)
            data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}  # another may have added to it
            data[subject.name] = found
            data = {each.name: data[each.name] for each in SUBJECTS if each.name in data}
            DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(data), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
