"""Recurrent language models: a state that takes in one token after the other, and the next token from it."""

from refllm.spec.array import Array, Pullback, Tree, tap
from refllm.spec.embedding import embedding
from refllm.spec.layers import with_head
from refllm.spec.linear import matmul
from refllm.spec.loss import next_token_loss
from refllm.spec.recurrent_layer import recurrent_layers


def recurrent_lm(p: Tree, *, ids: Array, config: Tree) -> tuple[Array, Pullback]:
    """RNN-LM, LSTM-LM: x = token[ids];   h = layer_L( ... layer_1(x)), each from zeros;   logits = h W

    W = tokenᵀ if tied.

    Source:  Mikolov et al. 2010 sec. 2; Sundermeyer et al. 2012; documents 001 ch. 1, 003 sec. 5.2.
    Shapes:  ids (B, T) in [0, V) -> logits (B, T, V)
    """
    x, embedding_back = embedding(p["token"], ids=ids)
    h, layers_back = recurrent_layers(tap("embedding", x), p["layers"], cell=config["cell"], token_mask=None)
    logits, head_back = matmul(h, p["token"].T if config["tied"] else p["head"])

    def recurrent_lm_back(dlogits: Array) -> Tree:
        dh, dW = head_back(dlogits)
        dx, dlayers = layers_back(dh)
        return with_head({"token": embedding_back(dx), "layers": dlayers}, dW, tied=config["tied"])

    return tap("logits", logits), recurrent_lm_back


def recurrent_lm_loss(
    p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree
) -> tuple[Array, Pullback]:
    """NLL: as `gpt_loss`

    Source:  Mikolov et al. 2010 sec. 2; documents 003 sec. 5.2 (erratum E13: the target is the next token).
    Shapes:  ids (B, T) in [0, V); targets (B, T) in [0, V) -> y ()
    """
    return next_token_loss(recurrent_lm, p, ids=ids, targets=targets, ignore=ignore, config=config)
