"""A language model learns a text: windows of its training part; bits per character of the part held out, or per token
where the tokens do not hold all of the text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from refllm.data.batching import Batches, held_out_windows
from refllm.data.corpus import Corpus, Split, python_reference, read_text, split
from refllm.errors import UserError
from refllm.metrics import bits_per_character, bits_per_token
from refllm.models import by_name
from refllm.objectives.causal import Causal
from refllm.parameters import Tree
from refllm.state_file import made_of
from refllm.tokenizers import Tokenizer, gives_back, require_same_vocabulary, unknown_share
from refllm.tokenizers import load as load_tokenizer
from refllm.train import Objective, evaluate
from refllm.workers import Workers

EVALUATION_BATCH = 32  # windows that go through the model together


@dataclass(frozen=True)
class HeldOut:
    """A text that a model is measured on, and its tokens."""

    text: str
    tokenizer: Tokenizer

    @cached_property
    def tokens(self) -> Any:
        return self.tokenizer.encode(self.text)

    @cached_property
    def is_whole(self) -> bool:
        return gives_back(self.tokenizer, self.tokens, self.text)

    def measures(self, nll: float) -> dict[str, float]:
        """Loss per token in nats, and bits per character; bits per token and the share of unknown ones where the tokens
        do not give the text back, whose characters would cost too little."""
        loss = {"val_loss": nll / len(self.tokens)}
        if self.is_whole:
            return {**loss, "val_bpc": bits_per_character(nll, len(self.text))}
        return {
            **loss,
            "val_bpt": bits_per_token(nll, len(self.tokens)),
            "val_unknown": unknown_share(self.tokenizer, self.tokens),
        }


def bits_of(measured: dict[str, float]) -> tuple[float, str]:
    """The bits of `HeldOut.measures`, and what they are counted by: a character or a token."""
    return (measured["val_bpc"], "character") if "val_bpc" in measured else (measured["val_bpt"], "token")


class Language:
    """A model of the protocol of refllm/objectives/causal.py on a text, that of `data` or the Python reference.

    Raises:  UserError if `digest` is given and the text is another.
    """

    def __init__(
        self, *, model: str, config: Any, tokenizer: Tokenizer, data: list[str], digest: str | None = None
    ) -> None:
        self.model, self.config, self.tokenizer = by_name(model), config, tokenizer
        self.data = [str(Path(d).resolve()) for d in data]
        require_same_vocabulary(tokenizer, config.vocabulary)
        self.objective: Objective = Causal(self.model, config)
        self.corpus = read_corpus(data)
        self.name, self.digest = self.corpus.name, hashlib.sha256(self.corpus.text.encode()).hexdigest()
        if digest not in (None, self.digest):
            raise UserError(f"{self.name} is not the text that the run began with; resume with the same")
        self.parts: Split = split(self.corpus)
        self.tokens = tokenizer.encode(self.parts.train)
        self.held_out = HeldOut(self.parts.validation, tokenizer)
        context, stride = config.context, max(1, config.context // 2)
        ids, targets = held_out_windows(self.tokens, self.held_out.tokens, context=context, stride=stride)
        pieces = range(0, len(ids), EVALUATION_BATCH)
        self.windows = [(ids[i : i + EVALUATION_BATCH], targets[i : i + EVALUATION_BATCH]) for i in pieces]
        self.validation_tokens = len(self.held_out.tokens)

    def introduced(self) -> str:
        return introduced(self.name, self.parts)

    def describe(self) -> dict[str, Any]:
        return {
            "task": "language", "model": self.model.__name__.rpartition(".")[2], "config": self.config.as_dict(),
            "tokenizer": self.tokenizer.to_json(), "data": self.data,
            "text_sha256": self.digest,
        }  # fmt: skip

    def feed(self, *, batch: int, order: Any, state: dict[str, Any] | None) -> Batches:
        context = self.config.context
        if state is None:
            return Batches(self.tokens, context=context, batch=batch, generator=order)
        return Batches.from_state(self.tokens, state, context=context, batch=batch)

    def tokens_a_batch(self, batch: int) -> int:
        return batch * int(self.config.context)

    def validate(self, p: Tree, *, device: str, workers: Workers) -> dict[str, float]:
        """`HeldOut.measures` over the whole validation text."""
        nll = evaluate(p, self.windows, model=self.model, config=self.config, device=device, workers=workers)
        return self.held_out.measures(nll)

    def told(self, measured: dict[str, float]) -> str:
        bits, unit = bits_of(measured)
        return f"held out {bits:.3f} bits/{unit}"


def load(description: dict[str, Any]) -> Language:
    return Language(
        model=description["model"],
        config=made_of(by_name(description["model"]).Config, description["config"]),
        tokenizer=load_tokenizer(description["tokenizer"]),
        data=description["data"],
        digest=description["text_sha256"],
    )


def read_corpus(data: list[str], *, border: str = "") -> Corpus:
    """The user's files, with `border` between two of them, or the text that every Python carries."""
    return read_text(data, border=border) if data else python_reference()


def introduced(name: str, parts: Split) -> str:
    """A text and its split, in a line; a second one where characters were left out."""
    line = f"{name}: {len(parts.train):,} characters to learn from, {len(parts.validation):,} held out"
    if parts.removed:
        line += f"\n           ({parts.removed:,} characters left out that the held-out part repeats)"
    return line
