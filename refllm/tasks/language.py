"""A language model learns a text: windows of its training part; bits per character of the part held out, or per token
where the tokens do not hold all of the text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refllm.backend import to_host
from refllm.data.batching import Batches
from refllm.data.held_out import HeldOutWindows
from refllm.models import by_name
from refllm.objectives.causal import Causal
from refllm.parameters import NamedLeaf, Tree
from refllm.piecewise import Piecewise
from refllm.state_file import made_of
from refllm.tasks import part_told
from refllm.tasks.start import Start, started
from refllm.tasks.text import LearntText, ReadText
from refllm.tokenizers import Tokenizer, require_same_vocabulary
from refllm.tokenizers import load as load_tokenizer
from refllm.train import Objective, evaluate
from refllm.workers import Workers

EVALUATION_BATCH = 32  # windows that go through the model together


def bits_of(measured: dict[str, float]) -> tuple[float, str]:
    """The bits of `HeldOut.measures`, and what they are counted by: a character or a token."""
    return (measured["val_bpc"], "character") if "val_bpc" in measured else (measured["val_bpt"], "token")


@dataclass(frozen=True)
class Beginning:
    """A trained model in the place of a fresh one: its weights by path, arrays or piecewise."""

    model: Any
    weights: dict[str, Any]

    def shapes(self, config: Any) -> Tree:
        return self.model.shapes(config)

    def initial_leaves(self, config: Any, generator: Any) -> Iterator[NamedLeaf]:
        for path, x in self.weights.items():
            yield path, x if isinstance(x, Piecewise) else to_host(x)


class Language:
    """A model of the protocol of refllm/objectives/causal.py on a text: that of `data` or the Python reference, which
    is read here unless it is given. From `start`, which is a trained model, it goes on; `window` is the tokens of a
    window, the context where there is none."""

    def __init__(
        self,
        *,
        model: str,
        config: Any,
        tokenizer: Tokenizer,
        data: list[str],
        text: LearntText | None = None,
        start: Start | None = None,
        window: int | None = None,
    ) -> None:
        self.model, self.config, self.tokenizer = by_name(model), config, tokenizer
        self.data = [str(Path(d).resolve()) for d in data]
        require_same_vocabulary(tokenizer, config.vocabulary)
        self.objective: Objective = Causal(self.model, config)
        self.text = text = text or LearntText.of(ReadText.whole(data), tokenizer)
        self.name, self.tokens, self.held_out = text.about.name, text.tokens, text.held_out
        self.start, self.window = start, min(window or config.context, config.context)
        self.windows = HeldOutWindows(self.tokens, self.held_out.tokens, context=self.window, batch=EVALUATION_BATCH)
        self.validation_tokens = len(self.held_out.tokens)

    @property
    def beginning(self) -> Any:
        """What the trainer begins with: the model, or the one that was trained before."""
        if self.start is None or self.start.weights is None:
            return self.model
        return Beginning(self.model, self.start.weights)

    def introduced(self) -> str:
        return self.text.about.introduced(self.tokenizer)

    def describe(self) -> dict[str, Any]:
        return {
            "task": "language", "model": self.model.__name__.rpartition(".")[2], "config": self.config.as_dict(),
            "tokenizer": self.tokenizer.to_json(), "data": self.data,
            **({} if self.window == self.config.context else {"window": self.window}),
            **({} if self.start is None else {"from": self.start.as_dict()}),
            **self.text.about.described(),
        }  # fmt: skip

    def feed(self, *, batch: int, order: Any, state: dict[str, Any] | None) -> Batches:
        if state is None:
            return Batches(self.tokens, context=self.window, batch=batch, generator=order)
        return Batches.from_state(self.tokens, state, context=self.window, batch=batch)

    def tokens_a_batch(self, batch: int) -> int:
        return batch * int(self.window)

    @property
    def examples_held_out(self) -> int:
        return self.windows.count

    def validate(self, p: Tree, *, device: str, workers: Workers, most: int | None = None) -> dict[str, float]:
        """`HeldOut.measures` over the whole validation text, or over what `most` of its windows count."""
        pieces = self.windows.pieces(most)
        nll = evaluate(p, pieces, model=self.model, config=self.config, device=device, workers=workers)
        return self.held_out.measures(nll, self.spans(most))

    def spans(self, most: int | None) -> list[tuple[int, int]] | None:
        """The held-out tokens that `most` windows count; None for all."""
        return None if most is None or most >= self.windows.count else self.windows.spans(most)

    def told(self, measured: dict[str, float]) -> str:
        bits, unit = bits_of(measured)
        return f"held out{part_told(measured)} {bits:.3f} bits/{unit}"


def load(description: dict[str, Any]) -> Language:
    tokenizer = load_tokenizer(description["tokenizer"])
    return Language(
        model=description["model"],
        config=made_of(by_name(description["model"]).Config, description["config"]),
        tokenizer=tokenizer,
        data=description["data"],
        text=LearntText.of(ReadText.again(description), tokenizer),
        start=started(description.get("from")),
        window=description.get("window"),
    )
