"""A directory in the layout of Hugging Face: what it holds is compared with its architecture before it is read."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from refllm.backend import Array
from refllm.errors import UserError
from refllm.limited_json import MOST_CONFIG, MOST_INDEX, read_object, read_text
from refllm.models import by_name
from refllm.models.checks import require_layers_within
from refllm.parameters import Tree, named_leaves
from refllm.piecewise import Piecewise, pieces_of
from refllm.pretrained.architectures import ARCHITECTURES
from refllm.pretrained.fields import Fields
from refllm.pretrained.naming import Architecture, Entry, matched, require_fit
from refllm.pretrained.tensor_file import Tensor, tensors_of
from refllm.pretrained.weights import parameter, require_form
from refllm.tokenizers.published.files import MOST_BYTES as MOST_TOKENIZER
from refllm.tokenizers.published.files import NAMES
from refllm.tokenizers.published.tokenizer import PublishedTokenizer

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MOST_SHARDS = 4096
UNTIED = ("llama", "mistral", "qwen2", "qwen3")  # whose output layer is their own where config.json does not say
PICKLED = re.compile(r".*\.(bin|pt|pth|ckpt|pkl)")
_PLAIN = re.compile(r"[\w.-]+\.safetensors", re.ASCII)


@dataclass(frozen=True)
class Folder:
    """A published model: its configuration as ours, and its tensors, unread, by plain name."""

    directory: Path
    fields: Fields
    architecture: Architecture
    config: Any
    shapes: Tree
    tensors: dict[str, Tensor]
    names: dict[str, str]  # plain names, as they are in the files

    @property
    def model(self) -> ModuleType:
        return by_name(self.architecture.model)

    @property
    def has_head(self) -> bool:
        """Whether the files hold an output layer, or tie it to the embedding; those of LlamaModel may do neither."""
        kind = self.fields.values["model_type"]
        tied = self.fields.flag("tie_word_embeddings", kind not in UNTIED)
        return tied or "lm_head.weight" in self.names or self.architecture.model == "bert"

    @cached_property
    def entries(self) -> list[Entry]:
        return self.architecture.table(self.config)

    def tensor(self, name: str) -> Tensor:
        """Of a plain name."""
        return self.tensors[self.names[name]]

    def leaves(self, weights: str = "float32") -> dict[str, Any]:
        """Our parameters by path, kept as `pretrained.weights` says. What the files hold in float32, as we have it, are
        views of them."""
        require_form(weights)
        self._require_equal()
        return {
            entry.path: parameter(entry, [self.tensor(name) for name in entry.names], weights) for entry in self.entries
        }

    def piecewise_leaves(self) -> dict[str, Piecewise]:
        """The same in float32, each read when it is asked for. UserError then if a number of it is not finite."""
        self._require_equal()
        shapes = dict(named_leaves(self.shapes))
        return {entry.path: self._piecewise(entry, shapes[entry.path]) for entry in self.entries}

    def _piecewise(self, entry: Entry, shape: tuple[int, ...]) -> Piecewise:
        tensors = [self.tensor(name) for name in entry.names]

        def pieces() -> Iterator[Array]:
            yield from pieces_of(parameter(entry, tensors, "float32"))
            for tensor in tensors:
                tensor.forget()

        return Piecewise(shape, np.dtype("float64" if "F64" in {t.dtype for t in tensors} else "float32"), pieces)

    def _require_equal(self) -> None:
        """UserError unless aliases are what they stand for, and zeros are zero."""
        for alias, name in self.architecture.aliases(self.config).items():
            if alias in self.names and not self.tensor(alias).is_equal_to(self.tensor(name)):
                raise UserError(
                    f"{self.directory}: {self.names[alias]} differs from {self.names[name]}, with which config.json "
                    "ties it; get the files of one and the same model"
                )
        self.require_zeros()

    def require_zeros(self) -> None:
        """UserError unless the small tensors are zero with which nothing is computed, BART's bias of the logits."""
        for name in self.architecture.zeros(self.config):
            if name in self.names and self.tensor(name).read().any():
                raise UserError(f"{self.directory}: {self.names[name]} is not zero, which is not supported")


def is_folder(directory: Path) -> bool:
    """Whether this is such a directory, and not a run."""
    return (directory / CONFIG).is_file() and not (directory / "checkpoint").is_dir()


def tokenizer_in(directory: Path, *, size: int | None) -> PublishedTokenizer:
    """The tokenizer of a published model, whose vocabulary has that size. UserError where there is none."""
    files = {name: read_text(directory / name, most=MOST_TOKENIZER) for name in NAMES if (directory / name).is_file()}
    if not set(files) - {"tokenizer_config.json"}:
        raise UserError(
            f"{directory} has no tokenizer.json, no vocab.json with merges.txt and no vocab.txt; get the files of its "
            "tokenizer"
        )
    return PublishedTokenizer(files, size=size)


def ends_in(directory: Path, fields: Fields) -> frozenset[int]:
    """The tokens that end a text: those of generation_config.json, or of config.json."""
    path = directory / "generation_config.json"
    values = read_object(path, most=MOST_CONFIG) if path.is_file() else {}
    found = values.get("eos_token_id", fields.values.get("eos_token_id"))
    return frozenset(i for i in (found if isinstance(found, list) else [found]) if type(i) is int)


def labels_in(fields: Fields, count: int) -> list[str]:
    """The names of the labels, in the order of the rows of their head. UserError for a name of two of them."""
    named = fields.inner("id2label")
    given = {} if named is None else named.values
    labels = [str(given.get(str(i), f"LABEL_{i}")) for i in range(count)]
    for label, places in Counter(labels).items():
        if places > 1:
            raise UserError(f"{fields.path}: id2label gives {places} labels the name {label[:40]!r}; give each its own")
    return labels


def digest_of(directory: Path) -> str:
    """The SHA-256 of the files with the weights."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.safetensors")):
        with open(path, "rb") as file:
            while piece := file.read(1 << 24):
                digest.update(piece)
    return digest.hexdigest()


def open_folder(directory: Path) -> Folder:
    """The published model in a directory.

    Raises: UserError for an architecture or a field that is not supported, tensors that do not belong to it, and files
    that are damaged or may run code, before anything of the model's size is made.
    """
    fields, architecture = described(directory)
    tensors = tensors_in(directory)
    names = matched(tensors, architecture)
    config = architecture.config(fields, {name: tensors[full] for name, full in names.items()})
    require_layers_within(config, len(tensors))
    shapes = by_name(architecture.model).shapes(config)
    require_fit(shapes, tensors, names, architecture, config)
    return Folder(directory, fields, architecture, config, shapes, tensors, names)


def described(directory: Path) -> tuple[Fields, Architecture]:
    """What config.json says, and the architecture that it names."""
    if directory.is_file():
        raise UserError(f"{directory} is a file; give the directory of the model, which is {directory.parent}")
    path = directory / CONFIG
    fields = Fields(read_object(path, most=MOST_CONFIG), str(path))
    kind = fields.values.get("model_type")
    if kind is None:
        raise UserError(f"{path} has no model_type; get the file again, or write one of {', '.join(ARCHITECTURES)}")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise UserError(f"{path}: the architecture {str(kind)[:40]!r} is not supported; {', '.join(ARCHITECTURES)} are")
    architecture = ARCHITECTURES[kind]
    classes = fields.words("architectures") or [architecture.classes[0]]
    if not set(classes) <= set(architecture.classes):
        raise UserError(
            f"{path}: the class {', '.join(classes)[:80]} is not supported; of {kind} these are: "
            f"{', '.join(architecture.classes)}"
        )
    if fields.values.get("quantization_config") is not None:
        raise UserError(f"{path}: quantised weights are not supported; get the model in float16, bfloat16 or float32")
    return fields, architecture


def tensors_in(directory: Path) -> dict[str, Tensor]:
    """The tensors of the one file, or of all shards that the index names, by name and unread."""
    if (directory / WEIGHTS).exists():
        return tensors_of(directory / WEIGHTS)
    if not (directory / INDEX).exists():
        raise UserError(_no_weights(directory))
    path = directory / INDEX
    weight_map = read_object(path, most=MOST_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path} has no weight_map of names and files; get the file again")
    files = sorted({file for file in weight_map.values() if isinstance(file, str)})
    odd = [str(file)[:60] for file in weight_map.values() if not isinstance(file, str) or not _PLAIN.fullmatch(file)]
    if odd:
        raise UserError(f"{path} names {odd[0]!r}, which is no .safetensors file beside it; get the file again")
    if len(files) > MOST_SHARDS:
        raise UserError(f"{path} names {len(files):,} files; {MOST_SHARDS:,} are the most")
    found: dict[str, Tensor] = {}
    opened = {file: tensors_of(directory / file) for file in files}
    for file, tensors in opened.items():
        for name, tensor in tensors.items():
            if weight_map.get(name) != file:
                other = f"in {weight_map[name]}" if name in weight_map else "nowhere"
                raise UserError(f"{directory / file} holds {name}, which {path} says is {other}; get the files again")
            found[name] = tensor
    missing = [name for name in weight_map if name not in found]
    if missing:
        raise UserError(f"{path} names {missing[0]}, which {weight_map[missing[0]]} does not hold; get the files again")
    return found


def _no_weights(directory: Path) -> str:
    pickled = sorted(path.name for path in directory.iterdir() if PICKLED.fullmatch(path.name))
    if not pickled:
        return f"{directory} has no {WEIGHTS} and no {INDEX}; give the directory of a published model"
    convert = (
        "import torch; from safetensors.torch import save_file; "
        f"save_file({{k: v.clone().contiguous() for k, v in torch.load('{pickled[0]}', weights_only=True).items()}}, "
        f"'{WEIGHTS}')"
    )
    return (
        f"{directory} has only {pickled[0]}, a pickle, which may run code and is never opened; convert it where torch "
        f'is installed: python -c "{convert}"'
    )
