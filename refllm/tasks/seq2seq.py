"""One text into another: an encoder-decoder learns pairs, from scratch or from a pre-trained run. (ENCDEC, DAE)"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from refllm.backend import to_device, to_host
from refllm.data.batching import some_batches
from refllm.data.examples import Pair, read_pairs
from refllm.data.pairs import IGNORE, PairBatches, by_length, encoded_pairs, pair_batch, split_pairs
from refllm.data.part import Examples, part_of
from refllm.errors import UserError
from refllm.finetune import Tuning, by_name
from refllm.models import encoder_decoder
from refllm.objectives.seq2seq import Seq2Seq, seq2seq_loss, shifted_right
from refllm.parameters import Tree, map_leaves
from refllm.state_file import made_of
from refllm.tasks import part_told
from refllm.tasks.start import Start, restored, tuning_of
from refllm.tokenizers import load as load_tokenizer
from refllm.tokenizers import require_same_vocabulary
from refllm.train import Objective
from refllm.workers import Workers

SPLIT_SEED = 0  # which pairs are held out depends on the data alone: runs with other seeds compare
EVALUATION_BATCH = 32  # pairs that go through the model together


Paired: TypeAlias = Examples[Pair]


def read_data(data: Sequence[str], *, source: str, target: str, validation: float) -> Paired:
    """The pairs of two parallel files or of tables, split so that equal sources and equal targets stay together."""
    pairs = read_pairs(data, source=source, target=target)
    train, held_out = split_pairs(pairs, validation=validation, seed=SPLIT_SEED)
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{len(pair.source)} {pair.source} {pair.target}\n".encode())
    return Paired(" and ".join(map(str, data)), train, held_out, digest.hexdigest())


def read_again(description: dict[str, Any], *, remedy: str = "; resume with the same") -> Paired:
    """The pairs of a run, or the part of them that it read.

    Raises: UserError if they are others, and as `read_data`.
    """
    read = read_data(description["data"], **description["columns"])
    if read.digest != description["pairs_sha256"]:
        raise UserError(f"{read.name} does not hold the pairs that the run began with{remedy}")
    return read.read(part_of(description))


class SequencePairs:
    """An encoder-decoder, or the part of it that `tuning` names, on pairs of texts.

    `command` is the one that the run belongs to. `data`, `source`, `target` and `validation` say where `read` came
    from, so that a run can be gone on with. `smoothing` is that of the labels, in training alone. `tuning` are the
    options of refllm.finetune.by_name. Pairs that do not fit the context are left out.

    Raises:  UserError if the tokenizer is not the model's, or no pair fits.
    """

    def __init__(
        self,
        *,
        command: str,
        config: encoder_decoder.Config,
        tokenizer: Any,
        read: Paired,
        data: Sequence[str],
        source: str,
        target: str,
        validation: float,
        smoothing: float,
        start: Start | None,
        tuning: dict[str, Any],
    ) -> None:
        require_same_vocabulary(tokenizer, config.vocabulary)
        if not 0 <= smoothing < 1:
            raise UserError(f"the smoothing of the labels must be at least 0 and below 1, got {smoothing}")
        self.command, self.config, self.tokenizer, self.read, self.start = command, config, tokenizer, read, start
        self.name, self.smoothing = read.name, smoothing
        self.data = [str(Path(d).resolve()) for d in data]
        self.columns = {"source": source, "target": target, "validation": validation}
        begin = None if start is None else start.weights
        self.tuning: Tuning = by_name(**tuning, model=encoder_decoder, config=config, parameters=begin)
        objective = Seq2Seq(encoder_decoder, config, start=tokenizer.special.cls, smoothing=smoothing)
        self.objective: Objective = self.tuning.wrap(objective)
        self.pairs, left_out = encoded_pairs(read.train, tokenizer=tokenizer, context=config.context)
        held_out, too_long = encoded_pairs(read.validation, tokenizer=tokenizer, context=config.context)
        self.left_out = left_out + too_long
        if not self.pairs or not held_out:
            raise UserError(
                f"hardly a pair of {read.name} fits the context of {config.context} tokens; "
                "give shorter texts or a larger --context"
            )
        pieces = by_length([len(s) + len(t) for s, t in held_out], batch=EVALUATION_BATCH)
        self.held_out = [pair_batch([held_out[i] for i in piece], special=tokenizer.special) for piece in pieces]

    @property
    def model(self) -> Any:
        return self.tuning.model

    def full(self, trained: Tree) -> Tree:
        """The parameters of the whole model, of those that are trained and those that are not."""
        return self.tuning.full(trained)

    def introduced(self) -> str:
        line = f"{self.name}: {len(self.read.train):,} pairs to learn from, {len(self.read.validation):,} held out"
        line += self.read.told()
        if self.left_out:
            how: dict[str, Any] = {"tokenizer": self.tokenizer, "context": self.config.context}
            pairs = (*self.read.train, *self.read.validation)
            first = next(pair.where for pair in pairs if not encoded_pairs([pair], **how)[0])
            line += (
                f"\n           (pairs longer than the context of {self.config.context} tokens, left out: "
                f"{self.left_out:,}, the first in {first})"
            )
        return line

    def describe(self) -> dict[str, Any]:
        return {
            "task": "seq2seq", "command": self.command, "model": "encoder_decoder", "config": self.config.as_dict(),
            "tokenizer": self.tokenizer.to_json(), "data": self.data, "columns": self.columns,
            "pairs_sha256": self.read.digest, **self.read.described(), "smoothing": self.smoothing,
            "from": None if self.start is None else self.start.as_dict(), "tuning": self.tuning.options,
        }  # fmt: skip

    def feed(self, *, batch: int, order: Any, state: dict[str, Any] | None) -> PairBatches:
        return PairBatches.of(self.pairs, special=self.tokenizer.special, batch=batch, order=order, state=state)

    def tokens_a_batch(self, batch: int) -> int:
        return round(batch * sum(len(source) + len(target) for source, target in self.pairs) / len(self.pairs))

    @property
    def examples_held_out(self) -> int:
        return EVALUATION_BATCH * len(self.held_out)

    def validate(self, p: Tree, *, device: str, workers: Workers, most: int | None = None) -> dict[str, float]:
        """NLL of a token of the targets held out, without smoothing."""
        batches = some_batches(self.held_out, most, batch=EVALUATION_BATCH)
        full = self.full(p)

        def one(batch: Tree) -> float:
            there = map_leaves(lambda x: to_device(x, device), batch)
            return nll(full, there, config=self.config, start=self.tokenizer.special.cls)

        total = sum(workers.map(one, batches))
        return {"val_loss": total / sum(int((batch["targets"] != IGNORE).sum()) for batch in batches)}

    def told(self, measured: dict[str, float]) -> str:
        kind = " without smoothing" if self.smoothing else ""
        return f"held out{part_told(measured)}: loss {measured['val_loss']:.3f} a token{kind}"


def nll(p: Tree, batch: Tree, *, config: encoder_decoder.Config, start: int) -> float:
    """Total NLL of the targets of a batch, in nats."""
    targets = batch["targets"]
    y, _ = seq2seq_loss(
        p, model=encoder_decoder, source=batch["source"], attention_mask=batch["attention_mask"],
        inputs=shifted_right(targets, start=start, ignore=IGNORE), targets=targets, ignore=IGNORE, smoothing=0.0,
        config=config, dropout_mask=None,
    )  # fmt: skip
    return float(to_host(y))


def load(description: dict[str, Any]) -> SequencePairs:
    """The task again, from the files of its pairs and, if only a part is trained, the run that it began from."""
    return SequencePairs(
        command=description["command"], config=made_of(encoder_decoder.Config, description["config"]),
        tokenizer=load_tokenizer(description["tokenizer"]), read=read_again(description), data=description["data"],
        **description["columns"],
        smoothing=description["smoothing"], start=restored(description), tuning=tuning_of(description),
    )  # fmt: skip
