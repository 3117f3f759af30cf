"""The model of documents 003 sec. 4.3: attention, and recurrent layers over what it gathers."""

from refllm.spec.array import Array, Pullback, Tree, arange, like, tap
from refllm.spec.embedding import embedding
from refllm.spec.linear import matmul
from refllm.spec.loss import next_token_loss
from refllm.spec.position import sinusoidal
from refllm.spec.recurrent_layer import recurrent_layers
from refllm.spec.self_attention import self_attention
from refllm.spec.tree import complete


def hybrid(p: Tree, *, ids: Array, config: Tree) -> tuple[Array, Pullback]:
    """HYBRID: logits = h W of the states h of all tokens, as a language model, which sees nothing of the future

    Source:  documents 003 sec. 4.3.
    Shapes:  ids (B, T) in [0, V) -> logits (B, T, V)
    """
    h, states_back = hybrid_states(p, ids=ids, attention_mask=None, config=config)
    logits, head_back = matmul(h, p["head"])

    def hybrid_back(dlogits: Array) -> Tree:
        dh, dW = head_back(dlogits)
        return {**states_back(dh), "head": dW}

    return tap("logits", logits), hybrid_back


def hybrid_states(p: Tree, *, ids: Array, attention_mask: Array | None, config: Tree) -> tuple[Array, Pullback]:
    """HYBRID: x = token[ids] + PE-SIN;   a = MHA(x), without residual and norm;   h = layer_L( ... layer_1(a))

    Bidirectional, attention and layers see the whole text (erratum E9); otherwise both see only the past.
    `attention_mask` is false at the padding.
    Source:  documents 003 sec. 4.1, 4.3 (erratum E12).
    Shapes:  ids (B, T) in [0, V); attention_mask bool (B, T) -> h (B, T, N)
    Back:    the head is not used here: its gradient is 0
    """
    T, keys = ids.shape[-1], None if attention_mask is None else attention_mask[:, None, None, :]
    words, embedding_back = embedding(p["token"], ids=ids)
    x = tap("embedding", words + sinusoidal(like(arange(T), words), width=words.shape[-1])[0])
    a, attention_back = self_attention(
        x, p["attention"], heads=config["heads"], causal=not config["bidirectional"], attention_mask=keys
    )
    h, layers_back = recurrent_layers(tap("attention", a), p["layers"], cell=config["cell"], token_mask=attention_mask)

    def hybrid_states_back(dh: Array) -> Tree:
        da, dlayers = layers_back(dh)
        dx, dattention = attention_back(da)
        return complete({"token": embedding_back(dx), "attention": dattention, "layers": dlayers}, p)

    return h, hybrid_states_back


def hybrid_loss(p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree) -> tuple[Array, Pullback]:
    """NLL: as `gpt_loss`

    Source:  documents 003 sec. 4.3, 5.2.
    Shapes:  ids (B, T) in [0, V); targets (B, T) in [0, V) -> y ()
    """
    return next_token_loss(hybrid, p, ids=ids, targets=targets, ignore=ignore, config=config)
