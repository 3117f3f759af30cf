"""The same work by PyTorch on the same GPU: eager, float32 without TF32, its fused attention and fused AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crosschecks.gpt import torch_loss
from gpu.sizes import Sizes
from refllm.models import gpt
from refllm.parameters import from_names, named_leaves


def find(device: str) -> tuple[Any, str]:
    """PyTorch, or None and why not."""
    try:
        import torch
    except ImportError:
        return None, "not installed"
    if device == "cuda" and not torch.cuda.is_available():
        return None, f"{torch.__version__} sees no GPU"
    torch.set_float32_matmul_precision("highest")
    return torch, torch.__version__


def _tree(torch: Any, sizes: Sizes, device: str, *, grad: bool) -> tuple[Any, list[Any]]:
    leaves = {n: torch.tensor(a, device=device, requires_grad=grad) for n, a in named_leaves(sizes.parameters())}
    return from_names(gpt.shapes(sizes.config), leaves), list(leaves.values())


def training_step(torch: Any, sizes: Sizes, device: str) -> Callable[[], Any]:
    p, leaves = _tree(torch, sizes, device, grad=True)
    s, host = sizes.settings(), torch.tensor(sizes.tokens())
    groups = [
        {"params": [a for a in leaves if a.ndim > 1], "weight_decay": s.decay},
        {"params": [a for a in leaves if a.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=s.lr, betas=(s.beta1, s.beta2), eps=s.eps, fused=device == "cuda")

    def once() -> Any:
        tokens = host.to(device)
        optimiser.zero_grad(set_to_none=True)
        loss = torch_loss(torch, p, tokens[:, :-1], tokens[:, 1:], sizes.config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves, s.clip)
        optimiser.step()
        return loss.detach()

    return once


def generation(torch: Any, sizes: Sizes, device: str) -> Callable[[], Any]:
    """Greedy, with a cache of keys and values."""
    p, _ = _tree(torch, sizes, device, grad=False)
    F, config, C, prompt = torch.nn.functional, sizes.config, sizes.config.width, torch.tensor(sizes.prompt())
    room = (1, config.heads, config.context, C // config.heads)

    def norm(x: Any, q: Any) -> Any:
        return F.layer_norm(x, (C,), q["g"], q["b"], config.eps)

    def layer(x: Any, q: Any, cache: tuple[Any, Any], end: int) -> Any:
        qkv = norm(x, q["norm1"]) @ q["attention"]["Wqkv"] + q["attention"]["bqkv"]
        query, k, v = (z.unflatten(-1, (config.heads, -1)).transpose(1, 2) for z in qkv.split(C, dim=-1))
        for kept, new in zip(cache, (k, v), strict=True):
            kept[:, :, end - 1 : end] = new
        y = F.scaled_dot_product_attention(query, cache[0][:, :, :end], cache[1][:, :, :end])
        x = x + y.transpose(1, 2).flatten(2) @ q["attention"]["Wo"] + q["attention"]["bo"]
        hidden = norm(x, q["norm2"]) @ q["feed_forward"]["W1"] + q["feed_forward"]["b1"]
        return x + F.gelu(hidden, approximate="tanh") @ q["feed_forward"]["W2"] + q["feed_forward"]["b2"]

    def once() -> list[int]:
        with torch.inference_mode():
            caches = [tuple(torch.empty(room, device=device) for _ in range(2)) for _ in p["layers"]]
            token, text = prompt.to(device), []
            for end in range(1, sizes.new_tokens + 1):
                x = F.embedding(token, p["token"]) + p["position"][end - 1]
                for q, cache in zip(p["layers"], caches, strict=True):
                    x = layer(x, q, cache, end)
                token = (norm(x, p["norm"]) @ p["token"].T).argmax(-1)
                text.append(int(token))
            return text

    return once


def attention(torch: Any, sizes: Sizes, device: str) -> Callable[[], Any]:
    """Causal, value and gradients."""
    q, k, v, dy = (torch.tensor(a, device=device) for a in sizes.attention_arrays())
    for x in (q, k, v):
        x.requires_grad_()

    def once() -> Any:
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.autograd.grad(y, (q, k, v), dy)

    return once


TASKS = {"training step": training_step, "generation": generation, "attention": attention}
