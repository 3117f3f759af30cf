"""JAX's side of the benchmark: the training step under jit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmark.tasks import ADAMW, STEPS
from refllm.parameters import map_leaves, named_leaves


class Side:
    """One task at a time: `prepare` it, then `once` does it once."""

    def __init__(self, threads: int) -> None:
        pass  # XLA takes the cores of the process

    def prepare_step(self, name: str) -> dict[str, Any]:
        shape = STEPS[name]
        config, H = shape.config, shape.heads
        p = map_leaves(jnp.asarray, shape.parameters())
        tokens = jnp.asarray(shape.tokens())
        ids, targets = tokens[:, :-1], tokens[:, 1:]
        causal = jnp.tril(jnp.ones((shape.context, shape.context), bool))

        def norm(x: Any, q: Any) -> Any:
            c = x - x.mean(-1, keepdims=True)
            return c / jnp.sqrt((c * c).mean(-1, keepdims=True) + config.eps) * q["g"] + q["b"]

        def attend(x: Any, q: Any) -> Any:
            qkv = (x @ q["Wqkv"] + q["bqkv"]).reshape(*x.shape[:2], 3, H, -1)
            query, k, v = (qkv[:, :, i].swapaxes(1, 2) for i in range(3))
            s = jnp.where(causal, query @ k.swapaxes(-1, -2) / np.sqrt(query.shape[-1]), -jnp.inf)
            y = jax.nn.softmax(s) @ v
            return y.swapaxes(1, 2).reshape(x.shape) @ q["Wo"] + q["bo"]

        def loss_of(p: Any) -> Any:
            x = p["token"][ids] + p["position"]
            for q in p["layers"]:
                x = x + attend(norm(x, q["norm1"]), q["attention"])
                f = q["feed_forward"]
                x = x + jax.nn.gelu(norm(x, q["norm2"]) @ f["W1"] + f["b1"], approximate=True) @ f["W2"] + f["b2"]
            log_p = jax.nn.log_softmax(norm(x, p["norm"]) @ p["token"].T)
            return -jnp.take_along_axis(log_p, targets[..., None], -1).mean()

        def step(p: Any, m: Any, v: Any, t: Any) -> Any:
            loss, g = jax.value_and_grad(loss_of)(p)
            total = jnp.sqrt(sum((a * a).sum() for a in jax.tree.leaves(g)))
            g = jax.tree.map(lambda a: a * jnp.minimum(1, ADAMW["clip"] / total), g)
            b1, b2 = ADAMW["beta1"], ADAMW["beta2"]
            m = jax.tree.map(lambda a, b: b1 * a + (1 - b1) * b, m, g)
            v = jax.tree.map(lambda a, b: b2 * a + (1 - b2) * b * b, v, g)

            def moved(a: Any, m: Any, v: Any) -> Any:
                shrink = 1 - ADAMW["lr"] * ADAMW["decay"] if a.ndim > 1 else 1
                root = jnp.sqrt(v / (1 - b2**t)) + ADAMW["eps"]
                return shrink * a - ADAMW["lr"] * m / (1 - b1**t) / root

            return jax.tree.map(moved, p, m, v), m, v, loss

        compiled = jax.jit(step, donate_argnums=(0, 1, 2))
        loss, gradient = jax.jit(jax.value_and_grad(loss_of))(p)
        first = {"loss": float(loss), **{n: np.asarray(a) for n, a in named_leaves(gradient)}}
        state = [map_leaves(jnp.array, p), map_leaves(jnp.zeros_like, p), map_leaves(jnp.zeros_like, p)]
        counter = [0]

        def once() -> Any:
            counter[0] += 1
            *state[:], loss = compiled(*state, float(counter[0]))
            return loss.block_until_ready()

        self.once = once
        return first
