"""A training step, generation and attention on the device, by refllm and by PyTorch, by a synchronised clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from gpu import torch_side
from gpu.sizes import Sizes
from refllm.backend import to_device
from refllm.generation.generate import generate
from refllm.models import gpt
from refllm.objectives.causal import Causal
from refllm.ops.attention import attention
from refllm.parameters import map_leaves, named_leaves
from refllm.train import Trainer
from refllm.workers import Workers

Once = Callable[[], Any]


def seconds(once: Once, synchronise: Callable[[], None], *, warmup: int, repeats: int) -> list[float]:
    """How long each repetition took, from an idle device to an idle device, after those that warm up."""
    taken = []
    for number in range(warmup + repeats):
        synchronise()
        start = time.perf_counter()
        once()
        synchronise()
        if number >= warmup:
            taken.append(time.perf_counter() - start)
    return taken


def rows(cupy: Any, torch: Any, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """A row a task: refllm's median and fastest seconds, PyTorch's where it is there, and what one of them does."""
    for name, ours in TASKS.items():
        row: dict[str, Any] = {"task": name, **_figures("refllm", ours(sizes), cupy.cuda.Device().synchronize, sizes)}
        if torch is not None:
            theirs = torch_side.TASKS[name](torch, sizes, "cuda")
            row |= _figures("torch", theirs, torch.cuda.synchronize, sizes)
            row["refllm_over_torch"] = row["refllm_median_s"] / row["torch_median_s"]
        yield row


def _figures(side: str, once: Once, synchronise: Callable[[], None], sizes: Sizes) -> dict[str, float]:
    taken = seconds(once, synchronise, warmup=sizes.warmup, repeats=sizes.repeats)
    return {f"{side}_median_s": statistics.median(taken), f"{side}_fastest_s": min(taken)}


def _training_step(sizes: Sizes) -> Once:
    """Tokens from the host to new parameters, the loss left on the device, as between two reports."""
    trainer = Trainer(
        model=gpt,
        config=sizes.config,
        objective=Causal(gpt, sizes.config),
        settings=sizes.settings(),
        workers=Workers(1),
    )
    trainer.load({"weights": dict(named_leaves(sizes.parameters()))}, step=0)
    tokens = sizes.tokens()

    def once() -> Any:
        with trainer.workers:
            return trainer.step(tokens, lr=trainer.settings.lr)

    return once


def _generation(sizes: Sizes) -> Once:
    """Greedy, with a cache of keys and values."""
    p = map_leaves(lambda a: to_device(a, "cuda"), sizes.parameters())
    prompt = to_device(sizes.prompt(), "cuda")

    def once() -> list[int]:
        steps = generate(
            p, model=gpt, ids=prompt, padding=None, config=sizes.config, new_tokens=sizes.new_tokens, temperature=1.0,
            top_k=None, top_p=None, uniforms=None, cache=True,
        )  # fmt: skip
        return [int(tokens[0]) for tokens, _ in steps]

    return once


def _attention(sizes: Sizes) -> Once:
    """Causal, value and gradients."""
    q, k, v, dy = (to_device(a, "cuda") for a in sizes.attention_arrays())
    return lambda: attention(q, k, v, causal=True, attention_mask=None)[1](dy)


TASKS: dict[str, Callable[[Sizes], Once]] = {
    "training step": _training_step,
    "generation": _generation,
    "attention": _attention,
}
