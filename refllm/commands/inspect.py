"""refllm inspect: what a model is, before it is loaded."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refllm.errors import UserError
from refllm.invocation import command
from refllm.models import LANGUAGE_MODELS
from refllm.parameters import Tree, count, named_leaves
from refllm.pretrained.folder import described, is_folder, open_folder, tensors_in, tokenizer_in
from refllm.pretrained.tensor_file import WIDTHS
from refllm.tasks.stored import stored_model

DESCRIPTION = """Say what a run or a published model is: architecture, parameters by part, memory, tokenizer, and what
is not supported and why. No weight is read.

example: refllm inspect models/SmolLM-135M"""

LESS_MEMORY = "inspect reads no weights; give a directory with smaller tokenizer files"
FLOAT = 4  # bytes of a number in use


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="a run or a published model")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    directory = Path(options.run_directory)
    found = _published(directory) if is_folder(directory) else _of_run(directory)
    print(json.dumps(found, indent=1) if options.json else as_text(found))
    return 1 if found["not_supported"] else 0


def _of_run(directory: Path) -> dict[str, Any]:
    stored = stored_model(directory)
    declared = stored.groups.declared("weights")
    return {
        "directory": str(directory), "architecture": "a run of refllm", "model": stored.description["model"],
        **_sizes(stored.config, stored.shapes),
        "tensors": len(declared), "types": dict(Counter(one.dtype for one in declared.values())),
        "file_bytes": stored.description["files"]["weights"]["bytes"],
        "tokenizer": {"kind": stored.tokenizer.kind, "size": stored.tokenizer.size}, "not_supported": [],
    }  # fmt: skip


def _published(directory: Path) -> dict[str, Any]:
    """Each part that cannot be used is a line under `not_supported`, and the others are told all the same."""
    problems: list[str] = []
    found: dict[str, Any] = {"directory": str(directory)}
    try:
        fields, architecture = described(directory)
        classes = fields.values.get("architectures") or [architecture.classes[0]]
        found |= {"architecture": f"{fields.values['model_type']} ({', '.join(classes)})", "model": architecture.model}
    except UserError as error:
        problems.append(str(error))
    try:
        tensors = tensors_in(directory)
        sizes = {name: math.prod(one.shape) * WIDTHS[one.dtype] for name, one in tensors.items()}
        types = Counter(one.dtype for one in tensors.values())
        found |= {"tensors": len(tensors), "types": dict(types), "file_bytes": sum(sizes.values())}
    except UserError as error:
        problems.append(str(error))
    size = None
    if not problems:
        try:
            folder = open_folder(directory)
            found |= _sizes(folder.config, folder.shapes) | {"output_layer": folder.has_head}
            size = folder.config.vocabulary
            folder.require_zeros()
        except UserError as error:
            problems.append(str(error))
    try:
        tokenizer = tokenizer_in(directory, size=size)
        found["tokenizer"] = {
            "kind": tokenizer.kind, "size": len(tokenizer.tokens), "special": len(tokenizer.special_tokens),
        }  # fmt: skip
    except UserError as error:
        problems.append(str(error))
    return {**found, "not_supported": list(dict.fromkeys(problems))}


def _sizes(config: Any, shapes: Tree) -> dict[str, Any]:
    parts = {name: count(part) for name, part in shapes.items()}
    found: dict[str, Any] = {
        "config": asdict(config),
        "parameters": count(shapes), "parts": parts, "memory_bytes": FLOAT * count(shapes),
        "largest": max(named_leaves(shapes), key=lambda item: math.prod(item[1]))[0],
    }  # fmt: skip
    if hasattr(config, "kv_heads"):
        found["bytes_a_token"] = 2 * FLOAT * config.layers * config.kv_heads * config.head_width
    elif hasattr(config, "layers") and hasattr(config, "heads"):
        found["bytes_a_token"] = 2 * FLOAT * config.layers * config.width
    return found


def as_text(found: dict[str, Any]) -> str:
    """The same as lines."""
    lines = [f"directory    {found['directory']}"]
    if "architecture" in found:
        lines.append(f"model        {found['architecture']}, here {found['model']}")
    if "config" in found:
        said = ", ".join(f"{name} {_shown(value)}" for name, value in found["config"].items())
        lines.append(f"config       {said}")
        lines.append(f"parameters   {found['parameters']:,}")
        lines += [
            f"    {name:<16}{n:>16,}  {100 * n / found['parameters']:5.1f} %" for name, n in found["parts"].items()
        ]
        lines.append(f"memory       {_bytes(found['memory_bytes'])} in float32")
        if "bytes_a_token" in found and found["model"] in LANGUAGE_MODELS:
            lines.append(f"             and {_bytes(found['bytes_a_token'])} for the keys and values of a token")
    if "tensors" in found:
        types = ", ".join(f"{n:,} of {dtype}" for dtype, n in found["types"].items())
        lines.append(f"files        {found['tensors']:,} tensors ({types}), {_bytes(found['file_bytes'])}")
    if "tokenizer" in found:
        lines.append(f"tokenizer    {', '.join(f'{name} {value}' for name, value in found['tokenizer'].items())}")
    if not found.get("output_layer", True):
        lines.append("output layer none: it gives vectors, and no token a probability")
    lines += [f"not supported: {problem}" for problem in found["not_supported"]]
    if not found["not_supported"]:
        writes = found["model"] in (*LANGUAGE_MODELS, "encoder_decoder") and found.get("output_layer", True)
        verb = "generate" if writes else "embed"
        lines.append(f"use it       {command(verb, found['directory'])}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        kinds = list(dict.fromkeys(map(str, value)))
        return f"({' '.join(kinds[:4])}{' ...' if len(kinds) > 4 else ''})" if kinds else "()"
    return str(value)


def _bytes(n: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:,.1f} {unit}"
    return f"{n} bytes"
