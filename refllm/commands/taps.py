"""refllm taps: what a published model computes on a text, layer by layer; and where a port of it begins to differ."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from refllm import ported
from refllm.backend import Array
from refllm.directory import require_free
from refllm.errors import UserError
from refllm.pretrained.export import file_of
from refllm.pretrained.tensor_file import narrowed, tensors_of
from refllm.tokenizers import begun
from refllm.trained import load_model, require_language_model

DESCRIPTION = """Write what a model computes on a text into a file of tensors: ids, embedding, layers.N.q, .k, .v and
.attention (the heads before the output map), layers.N, norm and logits. --compare reads such a file of a port, which
may hold any of them, names the first that differs, and says which known mistake gives the numbers of the port.

example: refllm taps models/SmolLM-135M --text "The capital of France is" --out taps.safetensors
         refllm taps models/SmolLM-135M --text "The capital of France is" --compare port.safetensors"""

LESS_MEMORY = "give a shorter text or a smaller model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_directory", metavar="RUN", help="a run or a published model, of the kind llama or gpt")
    add("--text", required=True, help="what it reads")
    add("--out", metavar="FILE", help="a new file, .safetensors")
    add("--compare", metavar="FILE", help="the same tensors as a port computes them, .safetensors")


def run(options: argparse.Namespace) -> int:
    if (options.out is None) == (options.compare is None):
        raise UserError("say what to do: --out FILE writes the tensors, --compare FILE compares those of a port")
    if options.out is not None:
        require_free(Path(options.out), ".safetensors")
    trained = load_model(Path(options.run_directory), "cpu")
    ids = begun(trained.tokenizer, options.text)[None]
    ported.require_kind(trained.description["model"])
    require_language_model(trained, Path(options.run_directory))
    if not 0 < ids.shape[1] <= trained.config.context:
        raise UserError(f"the text has {ids.shape[1]} tokens; it must have 1 to {trained.config.context:,}")
    ours = ported.taps(trained.model, trained.parameters, ids, trained.config)
    if options.out is not None:
        tensors = {name: ("F32", x.shape, narrowed(x.astype("float32"), "F32") or b"") for name, x in ours.items()}
        Path(options.out).write_bytes(file_of({"ids": _whole(ids), **tensors}))
        print(f"{len(tensors) + 1} tensors of {ids.shape[1]} tokens in {options.out}")
        return 0
    return _compared(trained, ids, ours, _read(Path(options.compare)))


def _whole(ids: Array) -> tuple[str, tuple[int, ...], bytes]:
    return "I64", ids.shape, ids.astype("<i8").tobytes()


def _read(path: Path) -> dict[str, Array]:
    return {name: tensor.read() for name, tensor in tensors_of(path).items() if tensor.dtype.startswith(("F", "B"))}


def _compared(trained: Any, ids: Array, ours: dict[str, Array], port: dict[str, Array]) -> int:
    known = [name for name in ours if name in port]
    if not known:
        raise UserError(f"the port has none of the tensors {', '.join(list(ours)[:6])} ...; name them so")
    wrong = ported.first_difference(ours, port)
    if wrong is None:
        print(f"{len(known)} tensors agree, the last of them {known[-1]}")
        return 0
    name, error = wrong
    before = known[: known.index(name)]
    print(f"the first tensor that differs: {name}, by {error:.3g} of its largest entry")
    print(f"the last that agrees: {before[-1] if before else 'none; nothing before it was given'}")
    for line in ported.explanations(trained.model, trained.parameters, ids, trained.config, port):
        print(f"the numbers of the port are those of this mistake: {line}")
    return 1
