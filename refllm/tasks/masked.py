"""BERT's pre-training on a text: masked words and sentence pairs. (BERT, MLM, NSP, SOP)"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from refllm.backend import generator, namespace, to_device, to_host
from refllm.data.batching import some_batches
from refllm.data.pretraining import PretrainingBatches
from refllm.data.sentences import FILE_BORDER, Document, encoded, split_documents
from refllm.models import bert
from refllm.objectives.pretraining import Pretraining, pretraining_loss
from refllm.parameters import Tree, map_leaves
from refllm.state_file import made_of
from refllm.tasks import part_told
from refllm.tasks.text import ReadText
from refllm.tokenizers import load as load_tokenizer
from refllm.tokenizers import require_same_vocabulary
from refllm.train import Objective
from refllm.workers import Workers

EVALUATION_BATCH, EVALUATION_BATCHES = 32, 40  # the pairs that a validation draws, always the same


class MaskedPretraining:
    """BERT with its heads for masked words and for pairs, on a text: that of `data` or the Python reference, which is
    read here unless it is given. No document goes on from one file into the next."""

    model: ModuleType = bert

    def __init__(
        self, *, config: bert.Config, tokenizer: Any, data: list[str], pairing: str, text: ReadText | None = None
    ) -> None:
        require_same_vocabulary(tokenizer, config.vocabulary)
        self.config, self.tokenizer, self.pairing = config, tokenizer, pairing
        self.data = [str(Path(d).resolve()) for d in data]
        self.objective: Objective = Pretraining(bert, config)
        text = text or ReadText.whole(data, border=FILE_BORDER)
        self.about, self.name = text.about, text.about.name
        self.documents = documents_of(text.train, tokenizer)
        held_out = self._batches(documents_of(text.held_out, tokenizer), batch=EVALUATION_BATCH, order=generator(0))
        self.held_out = [held_out.next_batch() for _ in range(EVALUATION_BATCHES)]

    def _batches(self, documents: Any, *, batch: int, order: Any) -> PretrainingBatches:
        return PretrainingBatches(documents, batch=batch, generator=order, **self._how())

    def _how(self) -> dict[str, Any]:
        return {
            "context": self.config.context, "special": self.tokenizer.special, "vocabulary": self.tokenizer.size,
            "pairing": self.pairing,
        }  # fmt: skip

    def introduced(self) -> str:
        return self.about.introduced(self.tokenizer)

    def describe(self) -> dict[str, Any]:
        return {
            "task": "masked", "model": "bert", "config": self.config.as_dict(), "tokenizer": self.tokenizer.to_json(),
            "data": self.data, "pairing": self.pairing, **self.about.described(),
        }  # fmt: skip

    def feed(self, *, batch: int, order: Any, state: dict[str, Any] | None) -> PretrainingBatches:
        if state is None:
            return self._batches(self.documents, batch=batch, order=order)
        return PretrainingBatches.from_state(self.documents, state, batch=batch, **self._how())

    def tokens_a_batch(self, batch: int) -> int:
        return batch * self.config.context  # at most: a batch is as long as its longest text

    def baselines(self) -> dict[str, float]:
        """What no reading achieves: always the most frequent masked word, and always the same answer to a pair."""
        words: dict[int, int] = {}
        for batch in self.held_out:
            for word in batch["targets"][batch["targets"] >= 0].tolist():
                words[word] = words.get(word, 0) + 1
        pairs = [int(label) for batch in self.held_out for label in batch["pair"]]
        return {
            "masked_accuracy": max(words.values()) / sum(words.values()),
            "pair_accuracy": max(pairs.count(0), pairs.count(1)) / len(pairs),
        }

    @property
    def examples_held_out(self) -> int:
        return EVALUATION_BATCH * len(self.held_out)

    def validate(self, p: Tree, *, device: str, workers: Workers, most: int | None = None) -> dict[str, float]:
        """The objective, and the shares of masked words and of pairs that are got right, over fixed held-out pairs."""

        def one(batch: Tree) -> tuple[float, ...]:
            return self._measured(p, map_leaves(lambda x: to_device(x, device), batch))

        batches = some_batches(self.held_out, most, batch=EVALUATION_BATCH)
        sums = [sum(column) for column in zip(*workers.map(one, batches), strict=True)]
        masked, pairs, right, places, right_pairs, examples = sums
        return {
            "val_loss": masked / places + pairs / examples,
            "masked_loss": masked / places,
            "masked_accuracy": right / places,
            "pair_accuracy": right_pairs / examples,
        }

    def _measured(self, p: Tree, batch: Tree) -> tuple[float, ...]:
        (masked, pairs), _ = pretraining_loss(
            p, model=bert, ids=batch["ids"], segments=batch["segments"], attention_mask=batch["attention_mask"],
            positions=batch["positions"], targets=batch["targets"], pair=batch["pair"], ignore=-1, config=self.config,
            dropout_mask=None,
        )  # fmt: skip
        h, _ = bert.encode(
            p,
            ids=batch["ids"],
            segments=batch["segments"],
            attention_mask=batch["attention_mask"],
            config=self.config,
            dropout_mask=None,
        )
        xp, targets = namespace(h), batch["targets"]
        rows = xp.take_along_axis(h, xp.maximum(batch["positions"], 0)[..., None], axis=1)
        words, _ = bert.masked_logits(rows, p, config=self.config)
        answers, _ = bert.pair_logits(h, p)
        right = ((words.argmax(axis=-1) == targets) & (targets >= 0)).sum()
        right_pairs = (answers.argmax(axis=-1) == batch["pair"]).sum()
        found = (masked, pairs, right, (targets >= 0).sum(), right_pairs)
        return (*(float(to_host(x)) for x in found), len(answers))

    def told(self, measured: dict[str, float]) -> str:
        return (
            f"held out{part_told(measured)}: "
            f"loss {measured['val_loss']:.3f}, masked words {100 * measured['masked_accuracy']:.1f} % right, "
            f"pairs {100 * measured['pair_accuracy']:.1f} %"
        )


def load(description: dict[str, Any]) -> MaskedPretraining:
    return MaskedPretraining(
        config=made_of(bert.Config, description["config"]),
        tokenizer=load_tokenizer(description["tokenizer"]),
        data=description["data"],
        pairing=description["pairing"],
        text=ReadText.again(description, border=FILE_BORDER),
    )


def documents_of(text: str, tokenizer: Any) -> list[Document]:
    """The documents of a text as ids, sentence by sentence."""
    return encoded(split_documents(text), tokenizer)
