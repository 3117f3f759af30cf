"""The encoder-decoder in the forms of 2017, BART and T5, and its losses."""

from refllm.spec.array import Array, Pullback, Tree, concatenate, part, sqrt, tap, where
from refllm.spec.cross_entropy import cross_entropy, smoothed_cross_entropy
from refllm.spec.gpt import embedded
from refllm.spec.layers import maybe_normalised, through, with_head
from refllm.spec.linear import matmul
from refllm.spec.relative import t5_bias_bidirectional, t5_bias_causal
from refllm.spec.transformer_layer import decoder_layer, encoder_layer


def encoder_decoder(
    p: Tree, *, source: Array, attention_mask: Array | None, ids: Array, config: Tree
) -> tuple[Array, Pullback]:
    """ENCDEC: memory = encoder(source);   h = decoder(ids, memory);   logits = h W,   W = tokenᵀ if tied

    The logits are those of the next token at every place of the target; with "scaled_output" h / √C. `attention_mask`
    is false at the padding of the source, for the encoder and for cross-attention.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1; Lewis et al. 2020 (arXiv:1910.13461); Raffel et al. 2020
             (arXiv:1910.10683) sec. 2.1; documents 004 sec. 4.1.
    Shapes:  source (B, S) in [0, V); attention_mask bool (B, S); ids (B, T) in [0, V) -> logits (B, T, V)
    Back:    the token table is used by both halves, and, tied, by the output layer too
    """
    keys = None if attention_mask is None else attention_mask[:, None, None, :]
    c, tied = sqrt(config["width"]), config["tied"]
    with part("encoder"):
        memory, encoder_back = encoder(p["token"], p["encoder"], ids=source, attention_mask=keys, config=config)
    with part("decoder"):
        h, decoder_back = decoder(p["token"], p["decoder"], memory, ids=ids, attention_mask=keys, config=config)
    scaled = h / c if config["scaled_output"] else h
    logits, head_back = matmul(scaled, p["token"].T if tied else p["head"])

    def encoder_decoder_back(dlogits: Array) -> Tree:
        dscaled, dW = head_back(dlogits)
        dtoken_decoder, ddecoder, dmemory = decoder_back(dscaled / c if config["scaled_output"] else dscaled)
        dtoken_encoder, dencoder = encoder_back(dmemory)
        dp = {"token": dtoken_encoder + dtoken_decoder, "encoder": dencoder, "decoder": ddecoder}
        return with_head(dp, dW, tied=tied)

    return tap("logits", logits), encoder_decoder_back


def encoder(token: Array, p: Tree, *, ids: Array, attention_mask: Array | None, config: Tree) -> tuple[Array, Pullback]:
    """ENCDEC, the encoder: embedding and positions, layers in both directions, a last norm where they are pre-norm

    Source:  as `encoder_decoder`.
    Shapes:  token (V, C); ids (B, S) in [0, V); attention_mask bool (B, 1, 1, S) -> h (B, S, C)
    Back:    gives dtoken and dp
    """
    r, bias_back = t5_bias(p, t5_bias_bidirectional, places=ids.shape[-1], config=config)

    def layer(x: Array, p: Tree) -> tuple[Array, Pullback]:
        return encoder_layer(x, p, r, attention_mask=attention_mask, **of_layers(config))

    x, bottom_back = bottom(token, p, ids=ids, config=config)
    y, layers_back = through(x, p["layers"], layer)
    h, norm_back = maybe_normalised(y, p, "norm", eps=config["eps"])

    def encoder_back(dh: Array) -> tuple[Array, Tree]:
        dy, dnorm = norm_back(dh)
        dx, dlayers, *dr = layers_back(dy)
        dtoken, dbottom = bottom_back(dx)
        return dtoken, {**dbottom, **bias_back(*dr), "layers": dlayers, **dnorm}

    return (tap("norm", h) if "norm" in p else h), encoder_back


def decoder(
    token: Array, p: Tree, memory: Array, *, ids: Array, attention_mask: Array | None, config: Tree
) -> tuple[Array, Pullback]:
    """ENCDEC, the decoder: as the encoder, but causal, and every layer reads the memory

    Source:  as `encoder_decoder`.
    Shapes:  token (V, C); memory (B, S, C); ids (B, T) in [0, V); attention_mask bool (B, 1, 1, S) -> h (B, T, C)
    Back:    gives dtoken, dp and dmemory, the sum over the layers
    """
    r, bias_back = t5_bias(p, t5_bias_causal, places=ids.shape[-1], config=config)

    def layer(x: Array, p: Tree) -> tuple[Array, Pullback]:
        return decoder_layer(x, p, memory, r, attention_mask=attention_mask, **of_layers(config))

    x, bottom_back = bottom(token, p, ids=ids, config=config)
    y, layers_back = through(x, p["layers"], layer)
    h, norm_back = maybe_normalised(y, p, "norm", eps=config["eps"])

    def decoder_back(dh: Array) -> tuple[Array, Tree, Array]:
        dy, dnorm = norm_back(dh)
        dx, dlayers, dmemory, *dr = layers_back(dy)
        dtoken, dbottom = bottom_back(dx)
        return dtoken, {**dbottom, **bias_back(*dr), "layers": dlayers, **dnorm}, dmemory

    return (tap("norm", h) if "norm" in p else h), decoder_back


def of_layers(config: Tree) -> Tree:
    """What every layer of both halves is told. T5, which has positions "relative", does not divide scores by √D."""
    scaled = config["positions"] != "relative"
    return {"scaled": scaled, **{name: config[name] for name in ("norm", "heads", "activation", "eps")}}


def bottom(token: Array, p: Tree, *, ids: Array, config: Tree) -> tuple[Array, Pullback]:
    """EMB: `embedded`, and a norm where p has one for it

    Source:  as `embedded`; Lewis et al. 2020 (arXiv:1910.13461), code, for the norm.
    Shapes:  token (V, C); ids (B, T) in [0, V) -> x (B, T, C)
    """
    e, embedded_back = embedded(token, p, ids=ids, config=config)
    x, norm_back = maybe_normalised(e, p, "embedding_norm", eps=config["eps"])

    def bottom_back(dx: Array) -> tuple[Array, Tree]:
        de, dnorm = norm_back(dx)
        dtoken, dposition = embedded_back(de)
        return dtoken, {**dposition, **dnorm}

    return tap("embedding", x), bottom_back


def t5_bias(p: Tree, bias: Pullback, *, places: int, config: Tree) -> tuple[Array | None, Pullback]:
    """T5-REL: the bias by distance, from one table for all layers of a half, where p has one

    Source:  Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1.
    Shapes:  relative (K, H) -> r (H, places+places-1)
    """
    if "relative" not in p:

        def no_table_back() -> Tree:
            return {}

        return None, no_table_back

    r, table_back = bias(p["relative"], queries=places, keys=places, farthest=config["farthest"])

    def t5_bias_back(dr: Array) -> Tree:
        return {"relative": table_back(dr)}

    return r, t5_bias_back


def seq2seq_loss(
    p: Tree, *, source: Array, attention_mask: Array | None, targets: Array, start: int, ignore: int, smoothing: float,
    config: Tree,
) -> tuple[Array, Pullback]:  # fmt: skip
    """NLL: the mean over the targets that are not ignored of -log P(target | source, the targets before), smoothed

    The decoder reads `start` and every target but the last.
    Source:  Sutskever et al. 2014 (arXiv:1409.3215) sec. 2; Vaswani et al. 2017 (arXiv:1706.03762) sec. 5.4.
    Shapes:  source (B, S) in [0, V); attention_mask bool (B, S); targets (B, T) in [0, V) -> y ()
    """
    ids = shifted(where(targets == ignore, start, targets), start)  # behind an ignored target nothing is counted
    logits, model_back = encoder_decoder(p, source=source, attention_mask=attention_mask, ids=ids, config=config)
    y, cross_entropy_back = smoothed_cross_entropy(
        logits, targets=targets, ignore=ignore, smoothing=smoothing, reduction="mean"
    )

    def seq2seq_loss_back(dy: Array) -> Tree:
        return model_back(cross_entropy_back(dy))

    return y, seq2seq_loss_back


def denoising_loss(
    p: Tree, *, source: Array, attention_mask: Array | None, ids: Array, counted: Array, start: int, config: Tree
) -> tuple[Array, Pullback]:
    """DAE: the mean over the counted places of -log P(x_t | the corrupted text, x_1 ... x_{t-1})

    Source:  Lewis et al. 2020 (arXiv:1910.13461) sec. 2; documents 002 sec. 3.3.
    Shapes:  source (B, S) in [0, V); attention_mask bool (B, S); ids (B, T) in [0, V); counted bool (B, T) -> y ()
    """
    logits, model_back = encoder_decoder(
        p, source=source, attention_mask=attention_mask, ids=shifted(ids, start), config=config
    )
    y, cross_entropy_back = cross_entropy(logits, targets=where(counted, ids, -1), ignore=-1, reduction="mean")

    def denoising_loss_back(dy: Array) -> Tree:
        return model_back(cross_entropy_back(dy))

    return y, denoising_loss_back


def shifted(ids: Array, start: int) -> Array:
    """`start`, and all tokens but the last.

    >>> shifted(array([[5, 6, 7]]), 1)
    array([[1, 5, 6]])
    """
    return concatenate([0 * ids[:, :1] + start, ids[:, :-1]], axis=1)
