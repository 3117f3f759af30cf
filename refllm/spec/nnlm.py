"""The neural probabilistic language model: the last n - 1 tokens, and a feed-forward network over them."""

from refllm.spec.activation import tanh
from refllm.spec.array import Array, Pullback, Tree, tap, zeros
from refllm.spec.embedding import embedding
from refllm.spec.linear import linear, matmul
from refllm.spec.loss import next_token_loss
from refllm.spec.recurrent import window


def nnlm(p: Tree, *, ids: Array, config: Tree) -> tuple[Array, Pullback]:
    """NNLM: logits = b + x W + tanh(d + x H) U,   x the last order - 1 words side by side, zeros before the text

    Without "direct" connections there is no x W.
    Source:  Bengio et al. 2003 sec. 2, eq. (1); documents 001 ch. 1.
    Shapes:  ids (B, T) in [0, V) -> logits (B, T, V)
    Back:    x is used twice where there are direct connections
    """
    places, direct = config["order"] - 1, config["direct"]
    words, embedding_back = embedding(p["token"], ids=ids)
    past = zeros((ids.shape[0], places - 1, words.shape[-1]), words)
    x, window_back = window(words, past, places=places, token_mask=None)
    z, hidden_back = linear(tap("window", x), p["H"], p["d"])
    a, tanh_back = tanh(z)
    y, out_back = linear(tap("hidden", a), p["U"], p["b"])
    straight, direct_back = matmul(x, p["W"]) if direct else (None, None)

    def nnlm_back(dlogits: Array) -> Tree:
        da, dU, db = out_back(dlogits)
        dx, dH, dd = hidden_back(tanh_back(da))
        dp = {"H": dH, "d": dd, "U": dU, "b": db}
        if direct_back is not None:
            dx_direct, dp["W"] = direct_back(dlogits)
            dx = dx + dx_direct
        dwords, _ = window_back(dx)
        return {"token": embedding_back(dwords), **dp}

    return tap("logits", y + straight if direct else y), nnlm_back


def nnlm_loss(p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree) -> tuple[Array, Pullback]:
    """NLL: as `gpt_loss`

    Source:  Bengio et al. 2003 sec. 2.
    Shapes:  ids (B, T) in [0, V); targets (B, T) in [0, V) -> y ()
    """
    return next_token_loss(nnlm, p, ids=ids, targets=targets, ignore=ignore, config=config)
