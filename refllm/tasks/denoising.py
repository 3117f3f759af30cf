"""An encoder-decoder's pre-training on a text: it writes again what was taken out of it. (DAE, ENCDEC)"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from refllm.backend import generator, to_device, to_host
from refllm.data.batching import some_batches
from refllm.data.denoising import InfilledWindows
from refllm.models import encoder_decoder
from refllm.objectives.denoising import Denoising, denoising_loss
from refllm.parameters import Tree, map_leaves
from refllm.state_file import made_of
from refllm.tasks import part_told
from refllm.tasks.text import ReadText
from refllm.tokenizers import encode_long, require_same_vocabulary
from refllm.tokenizers import load as load_tokenizer
from refllm.train import Objective
from refllm.workers import Workers

EVALUATION_BATCH, EVALUATION_BATCHES = 32, 10  # the windows that a validation draws, always the same


class TextInfilling:
    """BART's pre-training on a text: that of `data` or the Python reference, which is read here unless it is given. The
    tokenizer has special tokens."""

    model: ModuleType = encoder_decoder

    def __init__(
        self, *, config: encoder_decoder.Config, tokenizer: Any, data: list[str], text: ReadText | None = None
    ) -> None:
        require_same_vocabulary(tokenizer, config.vocabulary)
        self.config, self.tokenizer = config, tokenizer
        self.data = [str(Path(d).resolve()) for d in data]
        self.objective: Objective = Denoising(encoder_decoder, config, start=tokenizer.special.cls)
        text = text or ReadText.whole(data)
        self.about, self.name = text.about, text.about.name
        self.tokens = encode_long(tokenizer, text.train)
        held_out = InfilledWindows(
            encode_long(tokenizer, text.held_out), batch=EVALUATION_BATCH, generator=generator(0), **self._how()
        )
        self.held_out = [held_out.next_batch() for _ in range(EVALUATION_BATCHES)]

    def _how(self) -> dict[str, Any]:
        return {"context": self.config.context, "special": self.tokenizer.special}

    def introduced(self) -> str:
        return self.about.introduced(self.tokenizer)

    def describe(self) -> dict[str, Any]:
        return {
            "task": "denoising", "model": "encoder_decoder", "config": self.config.as_dict(),
            "tokenizer": self.tokenizer.to_json(), "data": self.data, **self.about.described(),
        }  # fmt: skip

    def feed(self, *, batch: int, order: Any, state: dict[str, Any] | None) -> InfilledWindows:
        if state is None:
            return InfilledWindows(self.tokens, batch=batch, generator=order, **self._how())
        return InfilledWindows.from_state(self.tokens, state, batch=batch, **self._how())

    def tokens_a_batch(self, batch: int) -> int:
        return batch * self.config.context

    @property
    def examples_held_out(self) -> int:
        return EVALUATION_BATCH * len(self.held_out)

    def validate(self, p: Tree, *, device: str, workers: Workers, most: int | None = None) -> dict[str, float]:
        """NLL of a token of the texts that are written again, over fixed held-out windows."""
        batches = some_batches(self.held_out, most, batch=EVALUATION_BATCH)

        def one(batch: Tree) -> float:
            there = map_leaves(lambda x: to_device(x, device), batch)
            y, _ = denoising_loss(
                p,
                model=encoder_decoder,
                **there,
                start=self.tokenizer.special.cls,
                config=self.config,
                dropout_mask=None,
            )
            return float(to_host(y))

        total = sum(workers.map(one, batches))
        return {"val_loss": total / sum(int(batch["counted"].sum()) for batch in batches)}

    def told(self, measured: dict[str, float]) -> str:
        return f"held out{part_told(measured)}: loss {measured['val_loss']:.3f} a token"


def load(description: dict[str, Any]) -> TextInfilling:
    return TextInfilling(
        config=made_of(encoder_decoder.Config, description["config"]),
        tokenizer=load_tokenizer(description["tokenizer"]),
        data=description["data"],
        text=ReadText.again(description),
    )
