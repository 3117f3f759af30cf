"""refllm export: a model in the layout of Hugging Face."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from refllm.commands.train import LESS_MEMORY
from refllm.directory import directory_made, require_empty
from refllm.errors import UserError
from refllm.limited_json import read_bytes
from refllm.parameters import named_leaves
from refllm.pretrained.architectures import ARCHITECTURES
from refllm.pretrained.export import Written, config_of, tensors_of_folder, tensors_of_leaves, write_folder
from refllm.pretrained.folder import CONFIG, INDEX, WEIGHTS, is_folder, open_folder
from refllm.pretrained.naming import Architecture
from refllm.tokenizers import BytePairTokenizer, PublishedTokenizer, WordPieceTokenizer
from refllm.tokenizers.published.written import tokenizer_json
from refllm.trained import Trained, load_model

DESCRIPTION = """Write the model of a run, or of a published directory, in the layout of Hugging Face: config.json,
model.safetensors and the files of its tokenizer. What is written can be opened by transformers, and here in the place
of a run. A published model is written as it was, bit for bit.

example: refllm export runs/stars --to hf --out exported/stars"""

__all__ = ["DESCRIPTION", "LESS_MEMORY", "add_arguments", "run"]

MOST_COPIED = 1 << 27  # bytes of a file beside the weights
COPIED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "generation_config.json", "chat_template.jinja",
    "chat_template.json", "preprocessor_config.json", "sentence_bert_config.json", "modules.json",
    "config_sentence_transformers.json", "1_Pooling/config.json",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_directory", metavar="RUN", help="a run or a published model")
    add("--to", choices=("hf",), default="hf", help="the layout (default hf)")
    add("--out", metavar="DIR", required=True, help="a new directory")


def run(options: argparse.Namespace) -> int:
    directory, out = Path(options.run_directory), Path(options.out)
    require_empty(out)
    config, tensors, files, note = _published(directory) if is_folder(directory) else _of_run(directory)
    with directory_made(out):
        write_folder(out, config, tensors, files)
    names = ", ".join([CONFIG, WEIGHTS, *files])
    print(f"{len(tensors):,} tensors in {out}: {names}")
    if note:
        print(note)
    return 0


def _published(directory: Path) -> tuple[bytes, Written, dict[str, bytes], str]:
    folder = open_folder(directory)
    files = {name: read_bytes(directory / name, most=MOST_COPIED) for name in COPIED if (directory / name).is_file()}
    note = f"The shards of {INDEX} are one file now." if (directory / INDEX).exists() else ""
    return read_bytes(directory / CONFIG, most=MOST_COPIED), tensors_of_folder(folder, folder.leaves()), files, note


def _of_run(directory: Path) -> tuple[bytes, Written, dict[str, bytes], str]:
    trained = load_model(directory, "cpu")
    architecture, written = form_of(trained)
    tensors = tensors_of_leaves(architecture, trained.config, dict(named_leaves(trained.parameters)))
    labels = trained.description.get("labels")
    if labels is not None:
        written |= {
            "id2label": {str(i): label for i, label in enumerate(labels)},
            "label2id": {label: i for i, label in enumerate(labels)},
        }
    files, note = _tokenizer_files(trained.tokenizer)
    return config_of(written, tensors), tensors, files, note


def form_of(trained: Trained) -> tuple[Architecture, dict[str, Any]]:
    """The published architecture that a model of ours has, and its config.json. UserError where there is none."""
    model, config = trained.description["model"], trained.config
    candidates = [one for one in ARCHITECTURES.values() if one.model == model]
    if not candidates:
        known = ", ".join(sorted({one.model for one in ARCHITECTURES.values()}))
        raise UserError(f"a model of the kind {model} has no published form; {known} have")
    if model == "encoder_decoder" and config.positions == "learned":
        return ARCHITECTURES["bart"], ARCHITECTURES["bart"].written(config)
    written = candidates[0].written(config)
    return ARCHITECTURES[written["model_type"]], written


def _tokenizer_files(tokenizer: Any) -> tuple[dict[str, bytes], str]:
    """The files of a tokenizer, and a line where it has no published form."""
    if isinstance(tokenizer, PublishedTokenizer):
        return {name: text.encode() for name, text in tokenizer.files.items()}, ""
    if isinstance(tokenizer, WordPieceTokenizer):
        lower = "true" if tokenizer.lower else "false"
        config = f'{{"tokenizer_class": "BertTokenizer", "do_lower_case": {lower}}}\n'
        return {
            "vocab.txt": ("\n".join(tokenizer.vocabulary) + "\n").encode(),
            "tokenizer_config.json": config.encode(),
        }, ""
    if isinstance(tokenizer, BytePairTokenizer) and (text := tokenizer_json(tokenizer)) is not None:
        return {
            "tokenizer.json": text.encode(),
            "tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}\n',
        }, ""
    return {}, f"Its tokenizer, of the kind {tokenizer.kind}, has no published form and is not written."
