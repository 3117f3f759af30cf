"""PyTorch's side of the benchmark, eager or compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmark.tasks import ADAMW, GENERATIONS, STEPS
from crosschecks.gpt import torch_loss
from refllm.models import gpt
from refllm.parameters import from_names, named_leaves


class Side:
    """One task at a time: `prepare` it, then `once` does it once."""

    def __init__(self, threads: int, *, compiled: bool = False) -> None:
        torch.set_num_threads(threads)
        self.compiled = compiled

    def prepare_step(self, name: str) -> dict[str, Any]:
        shape = STEPS[name]
        config = shape.config
        leaves = {n: torch.tensor(a, requires_grad=True) for n, a in named_leaves(shape.parameters())}
        tree = from_names(gpt.shapes(config), leaves)
        tokens = torch.tensor(shape.tokens())
        ids, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        decayed = [a for a in leaves.values() if a.ndim > 1]
        rest = [a for a in leaves.values() if a.ndim == 1]
        groups = [{"params": decayed, "weight_decay": ADAMW["decay"]}, {"params": rest, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=ADAMW["lr"], betas=(ADAMW["beta1"], ADAMW["beta2"]), eps=ADAMW["eps"])

        def loss_of(tree: Any) -> Any:
            return torch_loss(torch, tree, ids, targets, config)

        value = torch.compile(loss_of) if self.compiled else loss_of

        def once() -> Any:
            optimiser.zero_grad(set_to_none=True)
            loss = value(tree)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(leaves.values(), ADAMW["clip"])
            optimiser.step()
            return loss

        loss = value(tree)
        loss.backward()
        self.once = once
        return {"loss": float(loss.detach()), **{n: a.grad.numpy().copy() for n, a in leaves.items()}}

    def prepare_generation(self, name: str) -> dict[str, Any]:
        shape, new_tokens = GENERATIONS[name]
        config, C = shape.config, shape.width
        p = from_names(gpt.shapes(config), {n: torch.tensor(a) for n, a in named_leaves(shape.parameters())})
        prompt = torch.tensor(shape.tokens()[:, :16])
        F = torch.nn.functional
        room = (1, config.heads, config.context, C // config.heads)

        def forward(ids: Any, start: int, cache: Any) -> Any:
            x = F.embedding(ids, p["token"]) + p["position"][start : start + ids.shape[1]]
            for q, (keys, values) in zip(p["layers"], cache, strict=True):
                a = F.layer_norm(x, (C,), q["norm1"]["g"], q["norm1"]["b"], config.eps)
                qkv = F.linear(a, q["attention"]["Wqkv"].T, q["attention"]["bqkv"])
                query, k, v = (z.unflatten(-1, (config.heads, -1)).transpose(1, 2) for z in qkv.split(C, dim=-1))
                end = start + ids.shape[1]
                keys[:, :, start:end], values[:, :, start:end] = k, v
                y = F.scaled_dot_product_attention(query, keys[:, :, :end], values[:, :, :end], is_causal=start == 0)
                x = x + F.linear(y.transpose(1, 2).flatten(2), q["attention"]["Wo"].T, q["attention"]["bo"])
                a = F.layer_norm(x, (C,), q["norm2"]["g"], q["norm2"]["b"], config.eps)
                a = F.gelu(F.linear(a, q["feed_forward"]["W1"].T, q["feed_forward"]["b1"]), approximate="tanh")
                x = x + F.linear(a, q["feed_forward"]["W2"].T, q["feed_forward"]["b2"])
            x = F.layer_norm(x[:, -1], (C,), p["norm"]["g"], p["norm"]["b"], config.eps)
            return F.linear(x, p["token"])

        @torch.inference_mode()
        def once() -> list[int]:
            cache = [(torch.empty(room), torch.empty(room)) for _ in range(config.layers)]
            new, start, text = prompt, 0, []
            for _ in range(new_tokens):
                logits = forward(new, start, cache)
                start += new.shape[1]
                new = logits.argmax(-1, keepdim=True)
                text.append(int(new))
            return text

        self.once = once
        return {"tokens": once()}

    def prepare_attention(self, name: str) -> dict[str, Any]:
        T = int(name)
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal((1, 4, T, 64), dtype=np.float32) for _ in range(4)]
        q, k, v = (torch.tensor(a, requires_grad=True) for a in arrays[:3])
        dy = torch.tensor(arrays[3])

        def once() -> Any:
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return y.detach(), *torch.autograd.grad(y, (q, k, v), dy)

        self.once = once
        return dict(zip(("y", "dq", "dk", "dv"), (a[:, :, ::97].numpy().copy() for a in once()), strict=True))
