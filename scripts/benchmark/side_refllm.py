"""refllm's side of the benchmark."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark.tasks import ADAMW, GENERATIONS, STEPS
from refllm.generation.generate import generate
from refllm.models import gpt
from refllm.objectives.causal import Causal
from refllm.ops.attention import attention
from refllm.parameters import for_decoding, named_leaves
from refllm.train import Settings, Trainer
from refllm.workers import Workers, keep_freed_memory


class Side:
    """One task at a time: `prepare` it, then `once` does it once."""

    def __init__(self, threads: int) -> None:
        keep_freed_memory()
        self.threads = threads
        self.workers = Workers(threads)

    def prepare_step(self, name: str) -> dict[str, Any]:
        """The first loss and gradient, for the check that all sides compute the same."""
        shape = STEPS[name]
        settings = Settings(
            batch=shape.batch, lr=ADAMW["lr"], warmup=0, floor=0, beta1=ADAMW["beta1"], beta2=ADAMW["beta2"],
            eps=ADAMW["eps"], decay=ADAMW["decay"], clip=ADAMW["clip"], seed=0, shards=min(self.threads, shape.batch),
            dtype="float32", device="cpu",
        )  # fmt: skip
        self.workers.__enter__()
        trainer = Trainer(
            model=gpt, config=shape.config, objective=Causal(gpt, shape.config), settings=settings, workers=self.workers
        )

        def begin() -> None:
            """The first parameters, of which no second copy stays, and no moments yet."""
            weights = dict(named_leaves(shape.parameters()))
            zeros = {name: np.broadcast_to(np.float32(0), x.shape) for name, x in weights.items()}
            trainer.load({"weights": weights, "moment1": zeros, "moment2": zeros}, step=0)

        tokens = shape.tokens()
        begin()
        loss = trainer.step(tokens, lr=0.0)  # moves nothing but the moments
        clipped = 1 / max(1.0, float(trainer.norm) / ADAMW["clip"])
        first = {name: gradient / np.float32(clipped) for name, gradient in trainer.gradient.views.items()}
        begin()
        self.once = lambda: trainer.step(tokens, lr=ADAMW["lr"])
        return {"loss": float(loss), **first}

    def prepare_generation(self, name: str) -> dict[str, Any]:
        shape, new_tokens = GENERATIONS[name]
        p, prompt = for_decoding(shape.parameters()), shape.tokens()[:, :16]

        def once() -> list[int]:
            steps = generate(
                p, model=gpt, ids=prompt, padding=None, config=shape.config, new_tokens=new_tokens, temperature=1.0,
                top_k=None, top_p=None, uniforms=None, cache=True,
            )  # fmt: skip
            return [int(token[0]) for token, _ in steps]

        self.once = once
        return {"tokens": once()}

    def prepare_attention(self, name: str) -> dict[str, Any]:
        T = int(name)
        rng = np.random.default_rng(0)
        q, k, v, dy = (rng.standard_normal((1, 4, T, 64), dtype=np.float32) for _ in range(4))
        self.workers.__enter__()

        def once() -> Any:
            """Two heads a worker, as the trainer gives each its share of a batch."""

            def share(i: int) -> Any:
                n = slice(4 * i // self.threads, 4 * (i + 1) // self.threads)
                y, back = attention(q[:, n], k[:, n], v[:, n], causal=True, attention_mask=None)
                return y, *back(dy[:, n])

            return self.workers.map(share, range(self.threads))

        self.once = once
        shares = zip(*once(), strict=True)
        first = (np.concatenate([a[:, :, ::97] for a in parts], axis=1) for parts in shares)
        return dict(zip(("y", "dq", "dk", "dv"), first, strict=True))
