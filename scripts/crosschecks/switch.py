"""Agreement with transformers and PyTorch: the switch layer, a whole Switch decoder, InfoNCE and the L2 penalty.

transformers gives the router, the experts and the load-balancing loss of a layer; the decoder is written here with
torch.nn.functional, its experts as a loop over the tokens in their order. Both take refllm's parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from crosschecks.gpt import torch_sublayers
from refllm.blocks.switch_layer import switch_layer, switch_layer_shapes
from refllm.models import switch
from refllm.ops.contrastive import info_nce
from refllm.ops.cross_entropy import cross_entropy
from refllm.ops.linear import matmul
from refllm.ops.penalty import l2_penalty
from refllm.parameters import Tree, from_names, map_leaves, named_leaves

LIMITS = {"float64": 1e-10, "float32": 1e-5}
BALANCE = 0.3  # large, so that its gradient does not vanish beside the others

# Tokens of a text, width, hidden, experts, capacity. Tokens are powers of 2, since transformers holds the shares of
# the experts in float32 whatever the precision, and those are then exact.
LAYERS = {
    "switch layer, room for all": (16, 8, 16, 4, 16),
    "switch layer, tokens dropped": (32, 8, 16, 4, 3),
    "switch layer, one token": (1, 5, 7, 3, 1),
}
DECODERS = {
    "switch decoder": switch.Config(
        vocabulary=61, context=24, layers=4, heads=4, width=32, hidden=64, experts=4, capacity_factor=1.0
    ),
    "switch decoder, one head": switch.Config(
        vocabulary=7, context=9, layers=2, heads=1, width=6, hidden=10, experts=3, every=1, activation="gelu_erf"
    ),
}

Result = tuple[float, dict[str, Any]]  # a loss and its gradients by name


def rows(seed: int) -> list[dict[str, Any]]:
    """The worst differences of each configuration and precision, relative to the largest entry of a tensor."""
    compared: dict[str, Callable[[str, np.random.Generator], tuple[Result, Result]]] = {
        **{name: partial(_layer, sizes) for name, sizes in LAYERS.items()},
        **{f"{name}, in training": partial(_decoder_in_training, config) for name, config in DECODERS.items()},
        **{f"{name}, in use": partial(_decoder_in_use, config) for name, config in DECODERS.items()},
        "InfoNCE": _info_nce,
        "L2 penalty": _l2_penalty,
    }
    found = []
    for name, compare in compared.items():
        for dtype, limit in LIMITS.items():
            (loss, gradient), (their_loss, their_gradient) = compare(dtype, np.random.default_rng(seed))
            error, tensor = _worst(gradient, their_gradient)
            difference = abs(loss - their_loss) / abs(their_loss)
            found.append(
                {
                    "configuration": name, "dtype": dtype, "loss": difference, "gradient": error, "tensor": tensor,
                    "limit": limit, "agrees": max(difference, error) <= limit,
                }
            )  # fmt: skip
    return found


def _worst(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[float, str]:
    """The largest difference relative to the largest entry of its tensor, and the tensor."""
    assert ours.keys() == theirs.keys()
    return max(
        (float(np.abs(d - theirs[name]).max() / max(np.abs(theirs[name]).max(), 1e-30)), name)
        for name, d in ours.items()
    )


def _tensors(tree: Tree) -> tuple[Tree, dict[str, Any]]:
    """The tree as leaves of PyTorch, and the leaves by name."""
    import torch

    leaves = {name: torch.tensor(leaf, requires_grad=True) for name, leaf in named_leaves(tree)}
    return from_names(tree, leaves), leaves


def _gradients(loss: Any, leaves: dict[str, Any]) -> Result:
    loss.backward()
    return loss.item(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def _layer(sizes: tuple[int, ...], dtype: str, rng: np.random.Generator) -> tuple[Result, Result]:
    """Σ y dy + BALANCE times the mean balance of the texts, y from one layer; dy random."""
    import torch
    from transformers import SwitchTransformersConfig
    from transformers.models.switch_transformers import modeling_switch_transformers as theirs

    T, C, F, E, capacity = sizes
    p = map_leaves(
        lambda shape: np.asarray(rng.standard_normal(shape), dtype), switch_layer_shapes(C, F, E, biases=False)
    )
    x, dy = rng.standard_normal((2, 3, T, C)).astype(dtype)
    (y, balance), back = switch_layer(x, p, activation="relu", capacity=capacity, token_mask=None)
    dx, dp = back(dy, np.full(3, BALANCE / 3, dtype))
    ours = float((y * dy).sum() + BALANCE * balance.mean()), {"x": dx, **dp}

    config = SwitchTransformersConfig(
        d_model=C, d_ff=F, num_experts=E, expert_capacity=capacity, router_jitter_noise=0.0,
        dropout_rate=0.0, router_bias=False, dense_act_fn="relu",
    )  # fmt: skip
    layer = theirs.SwitchTransformersSparseMLP(config).to(getattr(torch, dtype)).eval()
    weights = {"router.classifier.weight": p["Wr"].T}
    for e in range(E):
        weights[f"experts.expert_{e}.wi.weight"] = p["W1"][e].T
        weights[f"experts.expert_{e}.wo.weight"] = p["W2"][e].T
    layer.router.dtype = getattr(torch, dtype)  # its configuration offers float32 at most
    layer.load_state_dict({name: torch.tensor(leaf) for name, leaf in weights.items()})
    tokens = torch.tensor(x, requires_grad=True)
    _, _, scores = layer.router(tokens)
    evenness = theirs.load_balancing_loss_func(torch.softmax(scores, dim=-1), scores.argmax(dim=-1))
    loss = (layer(tokens) * torch.tensor(dy)).sum() + BALANCE * evenness
    loss.backward()
    experts = [layer.experts[f"expert_{e}"] for e in range(E)]
    return ours, (
        loss.item(),
        {
            "x": tokens.grad.numpy(),
            "Wr": layer.router.classifier.weight.grad.numpy().T,
            "W1": np.stack([_or_zeros(expert.wi.weight).T for expert in experts]),
            "W2": np.stack([_or_zeros(expert.wo.weight).T for expert in experts]),
        },
    )


def _or_zeros(weight: Any) -> Any:
    """The gradient of an expert's weights, zeros where no token came to it."""
    return np.zeros(tuple(weight.shape)) if weight.grad is None else weight.grad.numpy()


def _decoder_in_training(config: switch.Config, dtype: str, rng: np.random.Generator) -> tuple[Result, Result]:
    """The mean loss of the tokens and BALANCE times the balance, with tokens dropped."""
    p, ids, targets = _drawn(config, dtype, rng)
    (h, balance), back = switch.balanced_states(p, ids=ids, config=config, dropout_mask=None)
    loss, dh, dhead = _head(h, p, targets)
    gradient = switch.add_head_gradient(back(dh, np.asarray(BALANCE, dtype)), dhead, config)
    ours = float(loss + BALANCE * balance), dict(named_leaves(gradient))
    tree, leaves = _tensors(p)
    mean, evenness = _torch_decoder(tree, ids, targets, config, switch.capacity(config.context, config))
    return ours, _gradients(mean + BALANCE * evenness, leaves)


def _decoder_in_use(config: switch.Config, dtype: str, rng: np.random.Generator) -> tuple[Result, Result]:
    """The mean loss of the tokens, none dropped."""
    p, ids, targets = _drawn(config, dtype, rng)
    h, back = switch.hidden_states(p, ids=ids, config=config, dropout_mask=None, cache=None)
    loss, dh, dhead = _head(h, p, targets)
    ours = float(loss), dict(named_leaves(switch.add_head_gradient(back(dh), dhead, config)))
    tree, leaves = _tensors(p)
    return ours, _gradients(_torch_decoder(tree, ids, targets, config, config.context)[0], leaves)


def _drawn(config: switch.Config, dtype: str, rng: np.random.Generator) -> tuple[Tree, Any, Any]:
    p = map_leaves(lambda a: (a + 0.2 * rng.standard_normal(a.shape)).astype(dtype), switch.initial(config, rng))
    ids, targets = rng.integers(0, config.vocabulary, (2, 3, config.context))
    return p, ids, targets


def _head(h: Any, p: Tree, targets: Any) -> tuple[Any, Any, Any]:
    """The mean loss, and its gradients to the states and to the head."""
    logits, back_logits = matmul(h, p["token"].T)
    loss, back_loss = cross_entropy(logits, targets=targets, ignore=None, reduction="mean")
    return loss, *back_logits(back_loss(np.ones((), h.dtype)))


def _torch_decoder(p: Tree, ids: Any, targets: Any, config: switch.Config, places: int) -> tuple[Any, Any]:
    import torch

    F = torch.nn.functional
    norm, attend, feed = torch_sublayers(torch, config)

    def switched(x: Any, q: Any) -> tuple[Any, Any]:
        texts, balances = [], []
        for text in x:
            P = torch.softmax(text @ q["Wr"], dim=-1)
            chosen, room, tokens = P.argmax(dim=-1), [places] * config.experts, []
            for t, e in enumerate(chosen.tolist()):
                room[e] -= 1
                expert = {name: q[name][e] for name in ("W1", "b1", "W2", "b2")}
                tokens.append(P[t, e] * feed(text[t], expert) if room[e] >= 0 else torch.zeros_like(text[t]))
            f = torch.bincount(chosen, minlength=config.experts).to(P.dtype) / len(text)
            texts.append(torch.stack(tokens))
            balances.append(config.experts * (f * P.mean(dim=0)).sum())
        return torch.stack(texts), torch.stack(balances).mean()

    x, balance = F.embedding(torch.tensor(ids), p["token"]) + p["position"][: ids.shape[1]], 0.0
    for q in p["layers"]:
        x = x + attend(norm(x, q["norm1"]), q["attention"])
        z = norm(x, q["norm2"])
        if "switch" in q:
            y, evenness = switched(z, q["switch"])
            balance = balance + evenness
        else:
            y = feed(z, q["feed_forward"])
        x = x + y
    logits = norm(x, p["norm"]) @ p["token"].T
    return F.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten()), balance


def _info_nce(dtype: str, rng: np.random.Generator) -> tuple[Result, Result]:
    import torch

    F = torch.nn.functional
    a, b = rng.standard_normal((2, 9, 12)).astype(dtype)
    y, back = info_nce(a, b, temperature=0.1)
    ours = float(y), dict(zip("ab", back(np.ones((), dtype)), strict=True))
    tree, leaves = _tensors({"a": a, "b": b})
    similarity = F.cosine_similarity(tree["a"][:, None], tree["b"][None], dim=-1) / 0.1
    return ours, _gradients(F.cross_entropy(similarity, torch.arange(9)), leaves)


def _l2_penalty(dtype: str, rng: np.random.Generator) -> tuple[Result, Result]:
    w = rng.standard_normal((7, 5)).astype(dtype)
    y, back = l2_penalty(w, strength=0.3)
    ours = float(y), {"w": back(np.ones((), dtype))}
    tree, leaves = _tensors({"w": w})
    return ours, _gradients(tree["w"].norm() ** 2 * 0.3 / 2, leaves)
