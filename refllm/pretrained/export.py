"""A model written in the layout of Hugging Face: config.json, one file of tensors, and the files of its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refllm.backend import Array
from refllm.checkpoint import write_atomically
from refllm.errors import UserError
from refllm.parameters import Tree, named_leaves
from refllm.pretrained.folder import CONFIG, WEIGHTS, Folder
from refllm.pretrained.naming import Architecture, published
from refllm.pretrained.tensor_file import narrowed

Written = dict[str, tuple[str, tuple[int, ...], bytes]]  # type, shape and bytes of a tensor by name


def tensors_of_leaves(architecture: Architecture, config: Any, leaves: Mapping[str, Array]) -> Written:
    """The tensors of a model of ours, in float32 or float64 as it has them."""
    found: Written = {}
    for name, part in _parts(architecture, config, leaves):
        found[published(name, architecture)] = _stored(part, "F64" if part.dtype == np.float64 else "F32")
    for name, shape in architecture.zeros(config).items():
        found[published(name, architecture)] = _stored(np.zeros(shape, np.float32), "F32")
    return found


def tensors_of_folder(folder: Folder, leaves: Mapping[str, Array]) -> Written:
    """The tensors of a published model, by its names and in its types where the numbers allow it; what has no place
    among our parameters as it was."""
    found: Written = {}
    for name, part in _parts(folder.architecture, folder.config, leaves):
        tensor = folder.tensor(name)
        entry = next(one for one in folder.entries if name in one.names)
        if entry.skipped:
            part = np.concatenate([tensor.read()[: entry.skipped].astype(part.dtype), part[entry.skipped :]])
        found[folder.names[name]] = _stored(part, tensor.dtype)
    for name, full in folder.names.items():
        aliased = folder.architecture.aliases(folder.config).get(name)
        if aliased in folder.names:
            found[full] = found[folder.names[aliased]]
    for full, tensor in folder.tensors.items():
        found.setdefault(full, (tensor.dtype, tensor.shape, tensor.raw()))
    return {full: found[full] for full in folder.tensors}


def _parts(architecture: Architecture, config: Any, leaves: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    for entry in architecture.table(config):
        yield from zip(entry.names, entry.parted(leaves[entry.path]), strict=True)


def _stored(x: Array, dtype: str) -> tuple[str, tuple[int, ...], bytes]:
    data = narrowed(x, dtype)
    if data is None:
        dtype = "F32" if x.dtype == np.float32 else "F64"
        data = narrowed(x, dtype)
    assert data is not None, "a type holds its own numbers"
    return dtype, tuple(x.shape), data


def leaves_of(tree: Tree) -> dict[str, Array]:
    """Parameters by path."""
    return dict(named_leaves(tree))


def write_folder(directory: Path, config: bytes, tensors: Written, files: Mapping[str, bytes]) -> None:
    """Writes all files of a model; the weights last, so that a directory with them is whole."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (directory / name).parent.mkdir(exist_ok=True)
            write_atomically(directory / name, data)
        write_atomically(directory / CONFIG, config)
        write_atomically(directory / WEIGHTS, file_of(tensors))
    except OSError as error:
        raise UserError(
            f"cannot write the model in {directory}: {error.strerror or error}; free some space or choose another --out"
        ) from None


def file_of(tensors: Written) -> bytes:
    """A file of tensors, one behind the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight
    return b"".join([len(text).to_bytes(8, "little"), text, *(data for _, _, data in tensors.values())])


def config_of(written: Mapping[str, Any], tensors: Written) -> bytes:
    """config.json of these fields, with the type of the tensors."""
    types = {dtype for dtype, _, _ in tensors.values()}
    name = {"F64": "float64", "BF16": "bfloat16", "F16": "float16"}.get(
        types.pop() if len(types) == 1 else "", "float32"
    )
    return json.dumps({**written, "dtype": name}, indent=2, sort_keys=True).encode() + b"\n"
