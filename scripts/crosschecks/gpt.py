"""Agreement with PyTorch: loss and every gradient of a GPT, in float64 and float32, and steps of AdamW.

The PyTorch model is written with torch.nn.functional and takes refllm's parameters, so that nothing but the arithmetic
is compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refllm.models import gpt
from refllm.objectives.causal import causal_loss
from refllm.ops.position import sinusoidal
from refllm.optim.update import adamw
from refllm.parameters import from_names, map_leaves, named_leaves

# Worst difference allowed, relative to the largest entry of each tensor. The key bias has a gradient of exactly zero,
# so its part of bqkv is compared relative to the largest entry of the whole bqkv.
LIMITS = {"float64": 1e-10, "float32": 1e-5}

CONFIGURATIONS = {
    "GPT-2 style": gpt.Config(vocabulary=61, context=24, layers=3, heads=4, width=32, hidden=128),
    "2017 style": gpt.Config(
        vocabulary=61, context=24, layers=2, heads=4, width=32, hidden=64, norm="post", activation="relu",
        positions="sinusoidal", tied=False,
    ),
    "2017 style, scaled, tied": gpt.Config(
        vocabulary=61, context=24, layers=2, heads=4, width=32, hidden=64, norm="post", activation="relu",
        positions="sinusoidal", scaled_embedding=True,
    ),
    "untied, erf, one head": gpt.Config(
        vocabulary=7, context=9, layers=2, heads=1, width=6, hidden=10, activation="gelu_erf", tied=False
    ),
    "one token": gpt.Config(vocabulary=7, context=1, layers=1, heads=3, width=9, hidden=9),
    "several tiles": gpt.Config(vocabulary=31, context=600, layers=2, heads=2, width=8, hidden=32),
}  # fmt: skip


def torch_sublayers(torch: Any, config: Any) -> tuple[Any, Any, Any]:
    """norm(x, q), attend(x, q), causal, and feed(x, q) by PyTorch's own functions."""
    F, C = torch.nn.functional, config.width
    act = {
        "relu": F.relu,
        "gelu_erf": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    }[config.activation]

    def norm(x: Any, q: Any) -> Any:
        return F.layer_norm(x, (C,), q["g"], q["b"], config.eps)

    def attend(x: Any, q: Any) -> Any:
        qkv = x @ q["Wqkv"] + q["bqkv"]
        parts = (z.unflatten(-1, (config.heads, -1)).transpose(1, 2) for z in qkv.split(C, dim=-1))
        y = F.scaled_dot_product_attention(*parts, is_causal=True)
        return y.transpose(1, 2).flatten(2) @ q["Wo"] + q["bo"]

    def feed(x: Any, q: Any) -> Any:
        return act(x @ q["W1"] + q["b1"]) @ q["W2"] + q["b2"]

    return norm, attend, feed


def torch_loss(torch: Any, p: Any, ids: Any, targets: Any, config: gpt.Config) -> Any:
    """The mean loss by PyTorch's own functions."""
    F, C = torch.nn.functional, config.width
    norm, attend, feed = torch_sublayers(torch, config)
    if config.positions == "learned":
        table = p["position"]
    else:
        host = sinusoidal(np.arange(config.context, dtype=np.float64), width=C)[0]
        table = torch.tensor(host, dtype=p["token"].dtype)
    scale = C**0.5 if config.scaled_embedding else 1.0
    x = F.embedding(ids, p["token"]) * scale + table[: ids.shape[1]]
    for q in p["layers"]:
        if config.norm == "pre":
            x = x + attend(norm(x, q["norm1"]), q["attention"])
            x = x + feed(norm(x, q["norm2"]), q["feed_forward"])
        else:
            x = norm(x + attend(x, q["attention"]), q["norm1"])
            x = norm(x + feed(x, q["feed_forward"]), q["norm2"])
    if config.norm == "pre":
        x = norm(x, p["norm"])
    logits = x @ (p["token"].T if config.tied else p["head"])
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


def worst(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[float, str]:
    """The largest difference relative to its tensor's largest entry, and the tensor."""
    return max(
        (float(np.abs(ours[name] - theirs[name]).max() / max(np.abs(theirs[name]).max(), 1e-30)), name) for name in ours
    )


def check(torch: Any, config: gpt.Config, dtype: str, seed: int) -> dict[str, float | str]:
    """The worst differences of one configuration."""
    rng = np.random.default_rng(seed)
    fresh = gpt.initial(config, rng)
    p = map_leaves(lambda a: (a + 0.1 * rng.standard_normal(a.shape)).astype(dtype), fresh)
    ids = rng.integers(0, config.vocabulary, (3, config.context))
    targets = rng.integers(0, config.vocabulary, ids.shape)
    targets[0, 0] = -1
    count = int((targets >= 0).sum())

    loss, back = causal_loss(p, model=gpt, ids=ids, targets=targets, ignore=-1, config=config, dropout_mask=None)
    gradient = dict(named_leaves(back(np.asarray(1 / count, dtype))))

    leaves = {name: torch.tensor(a, requires_grad=True) for name, a in named_leaves(p)}
    tree = from_names(gpt.shapes(config), leaves)
    reference = torch_loss(torch, tree, torch.tensor(ids), torch.tensor(targets), config)
    reference.backward()
    theirs = {name: leaf.grad.numpy() for name, leaf in leaves.items()}

    optimiser = torch.optim.AdamW(leaves.values(), lr=0.01, betas=(0.9, 0.95), eps=1e-3, weight_decay=0.1)
    for _ in range(3):  # the same gradient three times: the moments and corrections are what is compared
        optimiser.step()
    stepped = {}
    for name, a in named_leaves(p):
        state = (a, np.zeros_like(a), np.zeros_like(a))
        for step in (1, 2, 3):
            new, m, v = adamw(
                state[0], theirs[name], *state[1:], step=step, lr=0.01, beta1=0.9, beta2=0.95, eps=1e-3, decay=0.1
            )
            state = (new, m, v)
        stepped[name] = state[0]
    gradient_error, tensor = worst(gradient, theirs)
    return {
        "loss": abs(float(loss) / count - reference.item()) / abs(reference.item()),
        "gradient": gradient_error,
        "tensor": tensor,
        "adamw": worst(stepped, {name: leaf.detach().numpy() for name, leaf in leaves.items()})[0],
    }


def rows(seed: int) -> list[dict[str, Any]]:
    """The worst differences of each configuration and precision."""
    import torch

    found = []
    for name, config in CONFIGURATIONS.items():
        for dtype, limit in LIMITS.items():
            row = check(torch, config, dtype, seed)
            agrees = all(float(row[part]) <= limit for part in ("loss", "gradient", "adamw"))
            found.append({"configuration": name, "dtype": dtype, "limit": limit, "agrees": agrees, **row})
    return found
