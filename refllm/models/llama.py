"""Llama: a decoder-only Transformer with RMS norm, gated feed-forward layers and grouped queries, and no biases.

    x   = token[ids]                                 (B, T, C)
    x   = x + ATT(RMS(x)),  x = x + FFN(RMS(x))      L times: causal grouped attention; SwiGLU
    P(x_{t+1} | x_1 ... x_t) = softmax(RMS(x_t) W)   W = tokenᵀ if tied

Where a token stands enters in the attention alone, by one of several schemes, and none has a table of positions. The
`context` therefore limits only the windows of training and the room of a cache: a model trained at one length is
evaluated beyond it by the same parameters under a Config with a larger context.

The fields from `biases` on are the forms of the family that are published: Llama 3.1 (scaling), Mistral (windows), Qwen
2 (biases), Qwen 3 (query_key_norm) and Gemma 2 (all from `activation` on).

Source: Touvron et al. 2023 (arXiv:2302.13971 sec. 2.2, arXiv:2307.09288 sec. 2.2); rotary positions: Su et al. 2021
(arXiv:2104.09864); "alibi": Press et al. 2022 (arXiv:2108.12409); "relative": the buckets of T5's decoder, one learned
table for all layers (Raffel et al. 2020, arXiv:1910.10683 sec. 2.1), with scores divided by √D as everywhere here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.gated_feed_forward import GATES
from refllm.blocks.grouped_attention import ROTATIONS
from refllm.blocks.layers import through
from refllm.blocks.llama_layer import llama_layer, llama_layer_shapes
from refllm.blocks.lm_head import maybe_capped
from refllm.blocks.residual import initial_residual, maybe_dropout, normalise
from refllm.blocks.self_attention import Cache
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.kinds import settle_fields
from refllm.models.checks import (
    require_draws,
    require_dropout,
    require_heads_divide_width,
    require_one_of,
    require_parameters,
    require_positive,
    require_whole,
)
from refllm.models.output import add_head_gradient, head, logit_cap, logits
from refllm.models.places import places
from refllm.models.rotary_scaling import SCALINGS, frequencies
from refllm.ops.embedding import embedding
from refllm.ops.relative import alibi, t5_bias_causal
from refllm.parameters import NamedLeaf, Tree, branch, from_names

POSITIONS = (*ROTATIONS, "alibi", "relative", "none")
BUCKETS, FARTHEST = 32, 128  # of "relative": those of T5
MOST_FACTOR = 1e9  # of dynamic scaling, whose power must stay a number


@dataclass(frozen=True)
class Config:
    """The architecture. Letters as in the glossary: V, context S, L, H, C, F; G heads of keys, D the width of a head.

    kv_heads = 0 stands for `heads`, head_width = 0 for width / heads; both fields hold the number meant.

    `biases` are "none", "qkv" or "qkvo"; `windows` is a number for each layer, 0 for all keys, or empty; `score_width`
    is what the scores are divided by the root of, 0 for head_width; a cap of 0 is none. Of "yarn" `scaling_low` and
    `scaling_high` are the turns beta_slow and beta_fast, and `scaling_scale` multiplies queries and keys.
    """

    vocabulary: int
    context: int
    layers: int
    heads: int
    width: int
    hidden: int
    kv_heads: int = 0
    head_width: int = 0
    positions: str = "rotary"
    base: float = 10000.0
    tied: bool = False
    dropout: float = 0.0
    eps: float = 1e-5
    biases: str = "none"
    query_key_norm: bool = False
    windows: tuple[int, ...] = ()
    scaling: str = "none"
    scaling_factor: float = 1.0
    scaling_original: int = 0
    scaling_low: float = 1.0
    scaling_high: float = 4.0
    scaling_scale: float = 1.0
    scaling_rounded: bool = True
    activation: str = "silu"
    offset_norms: bool = False
    norms_after: bool = False
    scaled_embedding: bool = False
    score_width: float = 0.0
    score_cap: float = 0.0
    logit_cap: float = 0.0
    feed_forward_biases: bool = False

    def __post_init__(self) -> None:
        settle_fields(self)
        require_whole(self, "vocabulary", "context", "layers", "heads", "width", "hidden")
        for name in ("kv_heads", "head_width"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise UserError(f"{name} must be a whole number of at least 1, or 0 to leave it open; got {value!r}")
        if not self.kv_heads:
            object.__setattr__(self, "kv_heads", self.heads)
        if not self.head_width:
            require_heads_divide_width(self, otherwise=", or give head_width")
            object.__setattr__(self, "head_width", self.width // self.heads)
        if self.heads % self.kv_heads:
            raise UserError(f"kv_heads must divide heads: {self.heads} / {self.kv_heads} is not whole; change one")
        require_one_of(self, "positions", POSITIONS)
        if self.positions in ROTATIONS and self.head_width % 2:
            raise UserError(
                f"positions {self.positions} turn pairs, so head_width must be even, not {self.head_width}; change "
                "heads, width or head_width"
            )
        if not 0 < self.base < math.inf:
            raise UserError(f"base must be a number above 0, got {self.base}")
        require_dropout(self)
        self._require_forms()

    def _require_forms(self) -> None:
        require_one_of(self, "biases", ("none", "qkv", "qkvo"))
        require_one_of(self, "scaling", SCALINGS)
        require_one_of(self, "activation", GATES)
        object.__setattr__(self, "windows", tuple(self.windows))  # JSON brings a list
        if self.windows and (len(self.windows) != self.layers or min(self.windows) < 0):
            raise UserError(f"windows must be a number of at least 0 for each of {self.layers} layers")
        for name in ("score_width", "score_cap", "logit_cap"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be a number of at least 0, got {getattr(self, name)}")
        if self.score_cap and self.positions in ("alibi", "relative"):
            raise UserError("a score_cap goes with rotary positions, or none; change positions, or leave it out")
        if self.scaling != "none":
            require_positive(self, "scaling_factor")
            require_positive(self, "scaling_scale")
        if self.scaling in ("dynamic", "yarn") and (self.scaling_original < 1 or self.head_width < 4):
            raise UserError(
                f"scaling {self.scaling} needs scaling_original of at least 1 and a head_width of at least 4; got "
                f"{self.scaling_original} and {self.head_width}"
            )
        if self.scaling == "dynamic" and self.scaling_factor > MOST_FACTOR:
            raise UserError(f"scaling_factor must be at most {MOST_FACTOR:g}, got {self.scaling_factor}")
        if self.scaling == "yarn" and not (0 < self.scaling_low <= self.scaling_high and self.base > 1):
            raise UserError(
                f"scaling yarn needs 0 < scaling_low <= scaling_high and a base above 1; got {self.scaling_low}, "
                f"{self.scaling_high} and {self.base}"
            )
        if self.scaling == "llama3" and not (self.scaling_original > 0 and 0 < self.scaling_low < self.scaling_high):
            raise UserError(
                "scaling llama3 needs scaling_original of at least 1 and 0 < scaling_low < scaling_high; got "
                f"{self.scaling_original}, {self.scaling_low} and {self.scaling_high}"
            )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "windows": list(self.windows)}


CHOICES = (  # a user's to make
    "context", "layers", "heads", "width", "hidden", "kv_heads", "head_width", "positions", "base", "tied", "dropout",
)  # fmt: skip


def shapes(config: Config) -> Tree:
    """The structure of the parameters, stated once for the initialiser, the loader and the tests."""
    V, C, H = config.vocabulary, config.width, config.heads
    tree: Tree = {"token": (V, C)}
    if config.positions == "relative":
        tree["relative"] = (BUCKETS, H)
    tree["layers"] = [
        llama_layer_shapes(
            C, H, config.kv_heads, config.head_width, config.hidden, biases=config.biases,
            query_key_norm=config.query_key_norm, offset_norms=config.offset_norms, norms_after=config.norms_after,
            feed_forward_biases=config.feed_forward_biases,
        )
        for _ in range(config.layers)
    ]  # fmt: skip
    tree["norm"] = {"offset": (C,)} if config.offset_norms else {"g": (C,)}
    if not config.tied:
        tree["head"] = (C, V)
    return tree


def initial(config: Config, generator: Any) -> Tree:
    """Initial parameters, as `initial_leaves` draws them."""
    return from_names(shapes(config), dict(initial_leaves(config, generator)))


def initial_leaves(config: Config, generator: Any) -> Iterator[NamedLeaf]:
    """Initial float64 host arrays by path, as `initial_residual` says."""
    return initial_residual(shapes(config), generator, width=config.width, layers=config.layers)


def alibi_slopes(heads: int) -> list[float]:
    """LONG, ALiBi: the slope of every head, 2^(-8 h / n) for h = 1 ... n if the number of heads n is a power of two

    Else the slopes of the next smaller power, followed by every second slope of the next larger one.
    Source:  Press et al. 2022 (arXiv:2108.12409) sec. 3; for other numbers of heads the authors' code.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2 ** (-4 * h / power) for h in range(1, 2 * power, 2)]
    return slopes + between[: heads - power]


@differentiable
def hidden_states(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: Cache | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """LLAMA: the hidden states after the last norm

    Source:  Touvron et al. 2023 (arXiv:2302.13971) sec. 2.2.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, C)
    Draws:   as `dropout_widths` says, bool (B, T, C)
    Back:    the layers' pullbacks in reverse; back gives no gradient of the head, which is not used here.
    Special: a bias by distance is formed once and shared by the layers, so its gradient is summed over them.
    Raises:  ValueError if the tokens (with those in the cache) outgrow the context.

    >>> config = Config(vocabulary=5, context=4, layers=2, heads=1, kv_heads=1, width=2, hidden=2)
    >>> p, how = initial(config, np.random.default_rng(0)), {"config": config, "dropout_mask": None, "cache": None}
    >>> y, z = (hidden_states(p, ids=ids, **how)[0] for ids in (array([[1, 2, 3]]), array([[1, 2, 4]])))
    >>> bool((y[:, :2] == z[:, :2]).all()), bool((y[:, 2] == z[:, 2]).any())  # the past does not know the future
    (True, False)
    """
    require_parameters("llama", p, config, shapes, cache=cache)
    require_draws("llama", dropout_mask, dropout_widths, config)
    positions, attention_mask = places(
        "llama", ids, cache, context=config.context, remedy="give fewer, or a config with a larger one"
    )
    T = ids.shape[1]
    S = T if cache is None else cache.length
    scale = math.sqrt(config.width) if config.scaled_embedding else 1.0
    e, back_embedding = embedding(p["token"], ids=ids)  # (B, T, C)
    e = e * scale if config.scaled_embedding else e
    r, back_bias = _bias(p, config, queries=T, keys=S)
    rotation = config.positions if config.positions in ROTATIONS else None
    base, of_scores = frequencies(config, length=S), stretch(config)
    masks = {window: within(attention_mask, window, ids, keys=S) for window in {0, *config.windows}}
    x, back_drop = maybe_dropout(e, dropout_mask=branch(dropout_mask, "embedding"), rate=config.dropout)

    def layer(x: Array, of_layer: Tree, i: int) -> tuple[Array, Callable[[Array], tuple[Array, Array | None, Tree]]]:
        return llama_layer(
            x, r, of_layer, heads=config.heads, kv_heads=config.kv_heads,
            rotation=rotation, positions=positions, base=base,
            attention_mask=masks[config.windows[i] if config.windows else 0], cap=config.score_cap or None,
            stretch=of_scores,
            activation=config.activation, eps=config.eps, dropout_mask=branch(dropout_mask, "layers", i),
            rate=config.dropout, cache=None if cache is None else cache.layers[i],
        )  # fmt: skip

    h, back_layers = through(x, p["layers"], layer)
    y, back_norm = normalise(h, p["norm"], eps=config.eps)

    def back(dy: Array) -> Tree:
        dh, dnorm = back_norm(dy)
        dx, dr, dlayers = back_layers(dh)
        de = back_drop(dx)
        dp: Tree = {"token": back_embedding(de * scale if config.scaled_embedding else de)}
        if config.positions == "relative":
            dp["relative"] = back_bias(dr)
        dp["layers"] = dlayers
        dp["norm"] = dnorm
        return dp

    return y, back


def stretch(config: Config) -> float:
    """What the scores q kᵀ / √D are multiplied by: for another width under the root, and for scaled positions."""
    if not config.score_width:
        return 1.0 if config.scaling_scale == 1 else config.scaling_scale**2
    return math.sqrt(config.head_width / config.score_width) * config.scaling_scale**2


def within(attention_mask: Array | None, window: int, ids: Array, *, keys: int) -> Array | None:
    """WIN: the mask with which a query, the last T of so many places, sees no key further back than the window."""
    if not window or keys <= window:
        return attention_mask
    xp, T = namespace(ids), ids.shape[1]
    near = xp.arange(keys) > (xp.arange(T) + keys - T - window)[:, None]
    return near if attention_mask is None else near & attention_mask


def _bias(p: Tree, config: Config, *, queries: int, keys: int) -> tuple[Array | None, Callable[[Any], Any]]:
    """What the scores of every layer get for the distance, (H, T+S-1); None where a rotation says it, or nothing."""
    if not queries:
        return _bias_of_nothing(p, config, keys=keys)
    if config.positions == "relative":
        return t5_bias_causal(p["relative"], queries=queries, keys=keys, farthest=FARTHEST)
    if config.positions != "alibi":
        return None, lambda dr: None
    m = namespace(p["token"]).empty(config.heads, p["token"].dtype)
    for h, slope in enumerate(alibi_slopes(config.heads)):
        m[h] = slope
    return alibi(m, queries=queries, keys=keys)


def _bias_of_nothing(p: Tree, config: Config, *, keys: int) -> tuple[Array | None, Callable[[Any], Any]]:
    """That of a text without a token, which no query looks at."""
    if config.positions not in ("alibi", "relative"):
        return None, lambda dr: None
    xp = namespace(p["token"])
    r = xp.zeros((config.heads, max(0, keys - 1)), p["token"].dtype)
    return r, lambda dr: xp.zeros_like(p["relative"])


def dropout_widths(config: Config) -> Tree:
    """The widths of the draws (B, T, width) that `dropout_mask` holds: after the embedding, and for each sublayer."""
    layer = dict.fromkeys(("attention", "feed_forward"), config.width)
    return {"embedding": config.width, "layers": [layer] * config.layers}


def cache_shape(config: Config) -> tuple[int, int, int]:
    """Layers, heads and head width of the keys and values to keep."""
    return config.layers, config.kv_heads, config.head_width


@differentiable
def forward(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: Cache | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """LLAMA, LMHEAD: the logits of the next token at every position

    Source:  documents 002 sec. 4.2: P(x_{t+1} | x_≤t) = softmax(h_t W).
    Shapes:  ids (B, T) in [0, V) -> y (B, T, V)

    >>> config = Config(vocabulary=3, context=4, layers=1, heads=1, kv_heads=1, width=2, hidden=2)
    >>> p = map_leaves(zeros, shapes(config))
    >>> forward(p, ids=array([[1, 2]]), config=config, dropout_mask=None, cache=None)[0].tolist()  # knows nothing
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    """
    h, back_hidden = hidden_states(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=cache)
    y, back_logits = logits(h, back_hidden, head(p, config), add_head_gradient, config)
    capped, back_cap = maybe_capped(y, cap=logit_cap(config))
    return capped, lambda dy: back_logits(back_cap(dy))
