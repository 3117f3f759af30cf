"""refllm taps: what a model computes on a text, value by value; and where a port of it begins to differ."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from refllm.backend import Array, namespace
from refllm.commands.verify_port import shown, tokens_of, unused_rows
from refllm.directory import require_free
from refllm.errors import UserError
from refllm.pretrained.export import file_of
from refllm.pretrained.folder import is_folder, open_folder
from refllm.pretrained.tensor_file import narrowed, tensors_of
from refllm.trained import Trained, load_model
from refllm.verify.ports import digits
from refllm.verify.ports import report as ports_report
from refllm.verify.ports.chosen import Input, context, inputs, of_text
from refllm.verify.ports.evaluation import evaluated
from refllm.verify.ports.file_names import names_in_files
from refllm.verify.ports.found import NOTHING_SOUGHT
from refllm.verify.ports.judged import Judged, judged
from refllm.verify.ports.program import Program, program
from refllm.verify.ports.report import PortReport
from refllm.verify.ports.search import SECONDS, searched
from refllm.verify.ports.truth import truth

DESCRIPTION = """Write what a model computes on a text into a file of tensors: ids, embedding, layers.N.q, .k, .v and
.attention (the heads before the output map), layers.N, norm and logits. --all writes every value that has a name. A
name without .safetensors is a new folder, with the values of a few more inputs: small enough to be sent. --compare
reads such a file of a port, which may hold any of them, names the first that differs, and says which mistake gives
the numbers of the port.

example: refllm taps models/SmolLM-135M --text "The capital of France is" --out taps.safetensors
         refllm taps models/SmolLM-135M --text "The capital of France is" --compare port.safetensors"""

LESS_MEMORY = "give a shorter text or a smaller model"
USUAL = ("q", "k", "v", "attention")  # of the values within a layer, those that are written without --all
SENT = ("one", "two", "text", "padded")  # inputs of a folder
ABOUT = """What {name} computes, as refllm has it in float32: one file of tensors for each input.

The inputs stand in inputs.json and in each file (ids, and mask, segments or source where the model takes them). The
other tensors are values on the way, by name. A port that computes the same inputs and writes its own values by these
names is compared with

    refllm taps {name} --text ... --compare port.safetensors      for one file
    refllm verify --model {name} --adapter port.py                for all inputs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_directory", metavar="RUN", help="a run or a published model that is a Transformer")
    add("--text", required=True, help="what it reads")
    add("--target", default="", metavar="TEXT", help="what the decoder has written so far, of an encoder-decoder")
    add("--out", metavar="FILE", help="a new file, .safetensors, or a new folder")
    add("--all", action="store_true", dest="every", help="every value that has a name")
    add("--compare", metavar="FILE", help="the same tensors as a port computes them, .safetensors")
    add("--search", type=float, default=SECONDS, metavar="SECONDS",
        help=f"with --compare: processor seconds that mistakes are tried for (default {SECONDS:g})")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    if (options.out is None) == (options.compare is None):
        raise UserError("say what to do: --out FILE writes the tensors, --compare FILE compares those of a port")
    folder = options.out is not None and not options.out.endswith(".safetensors")
    if options.out is not None:
        _require_new(Path(options.out), folder=folder)
    trained = load_model(Path(options.run_directory), "cpu")
    head = not trained.description.get("headless")
    steps = program(trained.description["model"], trained.config, head=head)
    given = _input(trained, steps, options)
    if options.compare is not None:
        return _compared(trained, steps, given, options)
    if folder:
        return _write_folder(Path(options.out), trained, steps, given, options)
    count = _write(Path(options.out), trained, steps, given, every=options.every)
    print(f"{count} tensors of {shown(given)} in {options.out}")
    return 0


def _require_new(path: Path, *, folder: bool) -> None:
    if not folder:
        require_free(path, ".safetensors")
    elif path.exists():
        raise UserError(f"--out {path}: is there already; give a new folder, or a file that ends in .safetensors")


def _input(trained: Trained, steps: Program, options: argparse.Namespace) -> Input:
    """The text as the model takes it."""
    if options.target and steps.model != "encoder_decoder":
        raise UserError("--target is what a decoder has written; this model has none, leave it out")
    ids = tokens_of(trained.tokenizer, options.text, steps)
    if not 0 < len(ids) <= context(steps):
        raise UserError(f"the text has {len(ids)} tokens; it must have 1 to {context(steps):,}")
    target = None
    if steps.model == "encoder_decoder":
        xp = namespace(ids)
        start = 0 if trained.writing is None else trained.writing.start
        written = trained.tokenizer.encode(options.target) if options.target else xp.zeros(0, "int64")
        target = xp.concatenate([xp.asarray([start]), written])[: context(steps)]
    return of_text(steps, ids, target)


def _write(path: Path, trained: Trained, steps: Program, given: Input, *, every: bool) -> int:
    """The inputs and the values, as one file; how many tensors."""
    found: dict[str, Array] = {}

    def look(name: str, x: Array) -> Array:
        if every or _is_usual(name, steps):
            found[name] = x
        return x

    evaluated(steps, trained.parameters, given.arrays, look=look)
    tensors = {name: ("F32", x.shape, narrowed(x.astype("float32"), "F32") or b"") for name, x in found.items()}
    whole = {name: ("I64", x.shape, x.astype("<i8").tobytes()) for name, x in given.arrays.items()}
    path.write_bytes(file_of({**whole, **tensors}))
    return len(whole) + len(tensors)


def _is_usual(name: str, steps: Program) -> bool:
    """The values between the steps, and some within a layer."""
    return name in {step.place for step in steps.steps} or name.rpartition(".")[2] in USUAL


def _write_folder(path: Path, trained: Trained, steps: Program, given: Input, options: argparse.Namespace) -> int:
    chosen = [replace(given, name="text") if one.name == "text" else one for one in inputs(steps) if one.name in SENT]
    path.mkdir(parents=True)
    for one in chosen:
        _write(path / f"{one.name}.safetensors", trained, steps, one, every=options.every)
    said = {one.name: {name: x.tolist() for name, x in one.arrays.items()} for one in chosen}
    (path / "inputs.json").write_text(json.dumps(said) + "\n", encoding="utf-8")
    (path / "README.md").write_text(ABOUT.format(name=Path(options.run_directory).name), encoding="utf-8")
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"the values of {len(chosen)} inputs in {path}, {size / 1e6:.1f} MB")
    return 0


def _compared(trained: Trained, steps: Program, given: Input, options: argparse.Namespace) -> int:
    path, directory = Path(options.compare), Path(options.run_directory)
    port = {name: x for name, x in _read(path).items() if name not in given.arrays}

    def judged_in(dtype: str) -> list[Judged]:
        return [judged(steps, truth(steps, trained.parameters, given, dtype), {}, port)]

    [answer] = judged_in("float32")
    if not answer.compared:
        names = [name for name in answer.truth.values if _is_usual(name, steps)]
        raise UserError(f"the port has none of the tensors {', '.join(names[:6])} ...; name them so")
    published = open_folder(directory) if is_folder(directory) else None
    raw: Mapping[str, Array] = {} if published is None else unused_rows(published)
    called = {} if published is None else names_in_files(published)
    coarser = digits.lost([answer], "float32", judged_in)
    found = NOTHING_SOUGHT if coarser else searched(steps, trained.parameters, raw, [answer], options.search)
    kind = str(trained.description["model"])
    done = PortReport(
        path.name, str(directory), kind, steps, "float32", [answer], {}, {}, found, called, coarser=coarser
    )
    print(ports_report.as_text(done), end="")
    return 0 if done.right else 1


def _read(path: Path) -> dict[str, Any]:
    return {name: tensor.read() for name, tensor in tensors_of(path).items() if tensor.dtype.startswith(("F", "B"))}
