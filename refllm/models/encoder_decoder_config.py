"""The choices in which published encoder-decoders differ, and which of their layers have experts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from refllm.blocks.feed_forward import ACTIVATIONS
from refllm.blocks.gated_feed_forward import GATES
from refllm.blocks.residual import RESIDUALS
from refllm.errors import UserError
from refllm.kinds import settle_fields
from refllm.models.checks import require_dropout, require_one_of, require_positive, require_whole

POSITIONS = ("sinusoidal", "learned", "relative")


@dataclass(frozen=True)
class Config:
    """The architecture. Letters as in the glossary: V, the longest source and the longest target, L of each stack, H,
    D, C, F; then the choices of the table in encoder_decoder.py. `buckets` and `farthest` are those of relative
    positions.

    With `experts` every so many layers of a stack, from the second one on, have experts in the place of their
    feed-forward layer, and an expert takes at most `capacity` tokens of a text: the published Switch Transformers."""

    vocabulary: int
    context: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    head_width: int
    width: int
    hidden: int
    norm: str = "post"
    rms: bool = False
    positions: str = "sinusoidal"
    activation: str = "relu"
    gated: bool = False
    biases: bool = True
    scaled_embedding: bool = False
    embedding_norm: bool = False
    tied: bool = True
    scaled_output: bool = False
    buckets: int = 32
    farthest: int = 128
    dropout: float = 0.0
    eps: float = 1e-5
    experts: int = 0
    encoder_every: int = 0
    decoder_every: int = 0
    capacity: int = 64

    def __post_init__(self) -> None:
        settle_fields(self)
        require_whole(
            self, "vocabulary", "context", "encoder_layers", "decoder_layers", "heads", "head_width", "width", "hidden"
        )
        require_dropout(self)
        require_positive(self, "eps")
        require_one_of(self, "norm", RESIDUALS)
        require_one_of(self, "activation", GATES if self.gated else ACTIVATIONS)
        require_one_of(self, "positions", POSITIONS)
        if self.gated and self.biases:
            raise UserError("a gated feed-forward layer has no biases; say biases=False, or gated=False")
        require_whole(self, "buckets", "farthest", "capacity")
        require_whole(self, "experts", "encoder_every", "decoder_every", least=0)
        if self.experts and (self.biases or self.gated):
            raise UserError("experts have neither biases nor gates; say biases=False and gated=False")
        if self.buckets < 4 or self.buckets % 2 or self.farthest <= self.buckets // 2:
            raise UserError(
                f"buckets must be an even number of at least 4 and farthest above half of it; "
                f"got {self.buckets} and {self.farthest}"
            )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_EXPERTS = ("experts", "encoder_every", "decoder_every", "capacity")
CHOICES = tuple(  # a user's to make
    field.name for field in fields(Config) if field.name not in ("vocabulary", "eps", *_EXPERTS)
)


def has_experts(stack: str, layer: int, config: Config) -> bool:
    """Whether the layer of that number, from 0, of "encoder" or "decoder" is one of experts.

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2, code: with one in every n layers it is the second of them.
    """
    every = config.encoder_every if stack == "encoder" else config.decoder_every
    return bool(config.experts) and every > 0 and (every == 1 or layer % every == 1)
