"""GPT: a decoder-only Transformer that gives the distribution of the next token at every place."""

from refllm.spec.array import Array, Pullback, Tree, arange, like, sqrt, tap
from refllm.spec.embedding import embedding
from refllm.spec.layers import maybe_normalised, through, with_head
from refllm.spec.linear import matmul
from refllm.spec.loss import next_token_loss
from refllm.spec.position import add_positions, sinusoidal
from refllm.spec.transformer_layer import transformer_layer


def gpt(p: Tree, *, ids: Array, config: Tree) -> tuple[Array, Pullback]:
    """GPT: x = token[ids] + position;   h = layer_L( ... layer_1(x));   logits = LN(h) W,   W = tokenᵀ if tied

    There is a last norm where the layers are pre-norm.
    Source:  Radford et al. 2018, 2019; documents 001 ch. 1, 002 sec. 4.2 (erratum E8: training is not recursive).
    Shapes:  ids (..., T) in [0, V) -> logits (..., T, V)
    Back:    the lines of the forward pass in reverse
    """

    def layer(x: Array, p: Tree) -> tuple[Array, Pullback]:
        return transformer_layer(
            x, p, norm=config["norm"], heads=config["heads"], causal=True, attention_mask=None,
            activation=config["activation"], eps=config["eps"],
        )  # fmt: skip

    x, embedded_back = embedded(p["token"], p, ids=ids, config=config)
    h, layers_back = through(tap("embedding", x), p["layers"], layer)
    n, norm_back = maybe_normalised(h, p, "norm", eps=config["eps"])
    logits, head_back = matmul(tap("norm", n) if "norm" in p else n, p["token"].T if config["tied"] else p["head"])

    def gpt_back(dlogits: Array) -> Tree:
        dn, dW = head_back(dlogits)
        dh, dnorm = norm_back(dn)
        dx, dlayers = layers_back(dh)
        dtoken, dposition = embedded_back(dx)
        return with_head({"token": dtoken, **dposition, "layers": dlayers, **dnorm}, dW, tied=config["tied"])

    return tap("logits", logits), gpt_back


def embedded(token: Array, p: Tree, *, ids: Array, config: Tree) -> tuple[Array, Pullback]:
    """EMB: x_t = token[ids_t], or √C token[ids_t] with "scaled_embedding", and its position

    Source:  Radford et al. 2018 sec. 3.1; Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.4.
    Shapes:  token (V, C); ids (..., T) in [0, V) -> x (..., T, C)
    Back:    gives dtoken and, by its name, the gradient of the table of positions where p has one
    """
    scaled, c = config.get("scaled_embedding"), sqrt(token.shape[-1])
    words, embedding_back = embedding(token, ids=ids)
    x, placed_back = placed(words * c if scaled else words, p, how=config["positions"])

    def embedded_back(dx: Array) -> tuple[Array, Tree]:
        dwords, dposition = placed_back(dx)
        return embedding_back(dwords * c if scaled else dwords), dposition

    return x, embedded_back


def placed(x: Array, p: Tree, *, how: str) -> tuple[Array, Pullback]:
    """PE-LRN, PE-SIN: x and its positions, "learned" in a table of p or "sinusoidal"; x itself where distances come in
    later

    Source:  as `add_positions` and `sinusoidal`.
    Shapes:  x (..., T, C); position (S, C) -> y (..., T, C)
    """
    T, C = x.shape[-2:]
    if how == "learned":
        y, positions_back = add_positions(x, p["position"], positions=arange(T))

        def learned_back(dy: Array) -> tuple[Array, Tree]:
            dx, dposition = positions_back(dy)
            return dx, {"position": dposition}

        return y, learned_back

    def placed_back(dy: Array) -> tuple[Array, Tree]:
        return dy, {}

    return (x + sinusoidal(like(arange(T), x), width=C)[0] if how == "sinusoidal" else x), placed_back


def gpt_loss(p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree) -> tuple[Array, Pullback]:
    """NLL: the mean of -log P(target | the tokens up to its place) over the targets that are not ignored

    Source:  Radford et al. 2018 eq. 1; documents 002 sec. 3.3, 4.2.
    Shapes:  ids (..., T) in [0, V); targets (..., T) in [0, V) -> y ()
    """
    return next_token_loss(gpt, p, ids=ids, targets=targets, ignore=ignore, config=config)
