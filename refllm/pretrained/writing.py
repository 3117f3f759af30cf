"""How a published encoder-decoder writes: with which token it begins, and what its files say of the search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refllm.errors import UserError
from refllm.limited_json import MOST_CONFIG, read_object
from refllm.pretrained.fields import Fields

GENERATION = "generation_config.json"
STOPS = {False: "estimate", True: "filled", "never": "bound"}  # beam search, by early_stopping
# What changes a choice and is not computed, with the values that change nothing.
_OTHERS: dict[str, tuple[Any, ...]] = {
    "min_length": (0, None), "min_new_tokens": (0, None), "no_repeat_ngram_size": (0, None),
    "encoder_no_repeat_ngram_size": (0, None), "repetition_penalty": (1.0, None), "bad_words_ids": (None,),
    "suppress_tokens": (None, []), "begin_suppress_tokens": (None, []), "num_beam_groups": (1, None),
    "diversity_penalty": (0.0, None),
}  # fmt: skip


@dataclass(frozen=True)
class Writing:
    """The start token, tokens that are given, and the search; `left_out` names what of the files is not computed."""

    start: int
    first: int | None
    last: int | None
    length_penalty: float
    stop: str
    left_out: tuple[str, ...]


def writing_in(directory: Path, fields: Fields, *, vocabulary: int) -> Writing:
    """What generation_config.json says, or config.json where it says nothing. UserError for what cannot be meant."""
    path = directory / GENERATION
    said = read_object(path, most=MOST_CONFIG) if path.is_file() else {}
    found = Fields({**fields.values, **{name: value for name, value in said.items() if value is not None}}, str(path))
    start = _token(found, "decoder_start_token_id", vocabulary)
    for name in ("bos_token_id", "pad_token_id"):
        start = _token(found, name, vocabulary) if start is None else start
    if start is None:
        raise UserError(f"{path} has no decoder_start_token_id; add the token that a text begins with")
    early = found.values.get("early_stopping") or False
    if early not in STOPS:
        raise UserError(f'{path}: early_stopping must be true, false or "never", got {str(early)[:40]!r}')
    left_out = tuple(name for name, plain in _OTHERS.items() if found.values.get(name) not in plain)
    return Writing(
        start, _token(found, "forced_bos_token_id", vocabulary), _token(found, "forced_eos_token_id", vocabulary),
        found.number("length_penalty", 1.0), STOPS[early], left_out,
    )  # fmt: skip


def _token(fields: Fields, name: str, vocabulary: int) -> int | None:
    value: Any = fields.values.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < vocabulary:
        raise UserError(
            f"{fields.path}: {name} must be a token, a number from 0 to {vocabulary - 1:,}, got {str(value)[:40]}"
        )
    return value
