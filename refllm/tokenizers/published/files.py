"""The files of a published tokenizer as the one object that tokenizer.json is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refllm.errors import UserError
from refllm.limited_json import parsed_object

WHOLE = "tokenizer.json"
NAMES = (WHOLE, "vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "vocab.txt", "tokenizer_config.json")
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
MOST_BYTES = 1 << 26
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def described(files: Mapping[str, str]) -> dict[str, Any]:
    """UserError where the files are not those of a tokenizer."""
    if WHOLE in files:
        return object_of(files[WHOLE], WHOLE)
    for vocabulary, merges in PAIRS:
        if vocabulary in files and merges in files:
            return _byte_level(object_of(files[vocabulary], vocabulary), files[merges])
    if "vocab.txt" in files:
        config = object_of(files.get("tokenizer_config.json", "{}"), "tokenizer_config.json")
        return _word_piece(files["vocab.txt"], config)
    raise UserError(
        f"there is no tokenizer: {WHOLE}, vocab.json with merges.txt, or vocab.txt is needed; get the file, or write "
        "it with the library that the model was published with"
    )


def object_of(text: str, name: str) -> dict[str, Any]:
    """The object of a JSON text, which nests no more values than such files do."""
    if len(text) > MOST_BYTES:
        raise UserError(f"{name} has {len(text):,} characters; {MOST_BYTES:,} are the most")
    return parsed_object(text, what=name)


def _byte_level(vocabulary: dict[str, Any], merges: str) -> dict[str, Any]:
    """GPT-2's: bytes, its pattern, and <|endoftext|> if the vocabulary has it."""
    lines = merges.split("\n")
    first = 1 if lines and lines[0].startswith("#version") else 0
    pairs = [line for line in lines[first:] if line.strip()]
    end = vocabulary.get("<|endoftext|>")
    added = [] if end is None else [{"id": end, "content": "<|endoftext|>", "special": True, "normalized": False}]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "added_tokens": added, "normalizer": None, "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {**byte_level, "trim_offsets": False},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": pairs},
    }  # fmt: skip


def _word_piece(lines: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """BERT's: a piece a line."""
    pieces = lines.replace("\r\n", "\n").removesuffix("\n").split("\n")
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    if len(vocabulary) < len(pieces):
        raise UserError("vocab.txt holds a piece twice; each has one id: get the file again")
    special = [
        {"id": vocabulary[token], "content": token, "special": True, "normalized": False}
        for token in BERT_SPECIAL
        if token in vocabulary
    ]
    template = None
    if "[CLS]" in vocabulary and "[SEP]" in vocabulary:
        template = {
            "type": "BertProcessing", "sep": ["[SEP]", vocabulary["[SEP]"]], "cls": ["[CLS]", vocabulary["[CLS]"]],
        }  # fmt: skip
    return {
        "added_tokens": special,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "lowercase": bool(config.get("do_lower_case", True)),
            "handle_chinese_chars": bool(config.get("tokenize_chinese_chars", True)),
            "strip_accents": config.get("strip_accents"),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": template,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]"},
    }  # fmt: skip
