"""Switch: a pre-norm GPT with learned positions and a tied head, in which some layers have experts."""

import math
from fractions import Fraction

from refllm.spec.array import Array, Pullback, Tree, arange, part, tap, total, zeros
from refllm.spec.cross_entropy import cross_entropy
from refllm.spec.embedding import embedding
from refllm.spec.layers import added, normalised, with_head
from refllm.spec.linear import matmul
from refllm.spec.position import add_positions
from refllm.spec.switch_layer import switch_transformer_layer
from refllm.spec.transformer_layer import transformer_layer


def switch(p: Tree, *, ids: Array, config: Tree) -> tuple[Array, Pullback]:
    """SWITCH in use: the logits; no token is dropped, so an expert has a place for every token

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1; documents 002 sec. 1.1.
    Shapes:  ids (..., T) in [0, V) -> logits (..., T, V)
    """
    (logits, balance), balanced_back = balanced(p, ids=ids, capacity=ids.shape[-1], config=config)

    def switch_back(dlogits: Array) -> Tree:
        return balanced_back(dlogits, 0 * balance)

    return logits, switch_back


def switch_loss(p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree) -> tuple[Array, Pullback]:
    """NLL, MOE: y = mean of -log P(target) + balance Σ over the layers of the mean over the texts of their load balance

    An expert takes ⌊capacity_factor T / experts⌋ tokens of a text. A target that is ignored is left out of the first
    mean only.
    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.2, eq. 3 and 4.
    Shapes:  ids (..., T) in [0, V); targets (..., T) in [0, V) -> y ()
    """
    T = ids.shape[-1]
    room = math.floor(Fraction(str(config["capacity_factor"])) * T / config["experts"])  # of the number as written
    (logits, balance), balanced_back = balanced(p, ids=ids, capacity=min(room, T), config=config)
    nll, cross_entropy_back = cross_entropy(logits, targets=targets, ignore=ignore, reduction="mean")

    def switch_loss_back(dy: Array) -> Tree:
        return balanced_back(cross_entropy_back(dy), config["balance"] * dy)

    return nll + config["balance"] * balance, switch_loss_back


def balanced(p: Tree, *, ids: Array, capacity: int, config: Tree) -> tuple[tuple[Array, Array], Pullback]:
    """SWITCH: the logits, and the sum over the layers with experts of the mean over the texts of their load balance

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2; Radford et al. 2019 sec. 2.3 for the rest.
    Shapes:  ids (..., T) in [0, V) -> logits (..., T, V), balance ()
    """
    how = {"heads": config["heads"], "activation": config["activation"], "eps": config["eps"]}
    words, embedding_back = embedding(p["token"], ids=ids)
    x, positions_back = add_positions(words, p["position"], positions=arange(ids.shape[-1]))
    x = tap("embedding", x)
    balances, backs = [], []
    for n, layer in enumerate(p["layers"]):
        with part(f"layers.{n}"):
            if "switch" in layer:
                (x, of_texts), back = switch_transformer_layer(
                    x, layer, causal=True, attention_mask=None, capacity=capacity, token_mask=None, **how
                )
                balances.append(total(of_texts) / of_texts.size)
                backs.append((back, of_texts))
            else:
                x, back = transformer_layer(x, layer, norm="pre", causal=True, attention_mask=None, **how)
                backs.append((back, None))
    h, norm_back = normalised(x, p["norm"], eps=config["eps"])
    logits, head_back = matmul(tap("norm", h), p["token"].T)

    def balanced_back(dlogits: Array, dbalance: Array) -> Tree:
        dh, dW = head_back(dlogits)
        dx, dnorm = norm_back(dh)
        dlayers = []
        for back, of_texts in reversed(backs):
            dtexts = [] if of_texts is None else [zeros(of_texts.shape, of_texts) + dbalance / of_texts.size]
            dx, dlayer = back(dx, *dtexts)
            dlayers.append(dlayer)
        dwords, dposition = positions_back(dx)
        dp = {"token": embedding_back(dwords), "position": dposition, "layers": dlayers[::-1], "norm": dnorm}
        return with_head(dp, dW, tied=True)

    return (tap("logits", logits), added(balances)), balanced_back
