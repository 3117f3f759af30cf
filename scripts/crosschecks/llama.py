"""Agreement with transformers: loss and every gradient of Llama on random weights, T5's buckets and ALiBi's slopes.

The model of transformers is LlamaForCausalLM with our parameters. It knows rotary positions in the layout of halves;
interleaved ones are the same with the columns of the query and key weights in another order. For the other schemes it
is told that every token stands at position 0, where nothing turns, and gets the bias (T5's buckets and Bloom's slopes
by its own functions) as an attention mask that is added to the scores.

Whatever the dtype, transformers forms angles, norms and the softmax in float32. For the comparison in float64, which no
float32 step would let agree beyond six digits, angles and norms are replaced by PyTorch's in float64, and its "eager"
attention by PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refllm.models import llama
from refllm.objectives.causal import causal_loss
from refllm.ops.relative import t5_bias_bidirectional, t5_bias_causal
from refllm.parameters import Tree, map_leaves, named_leaves

LIMITS = {"float64": 1e-10, "float32": 1e-5}

SMALL: dict[str, Any] = {"vocabulary": 61, "context": 24, "layers": 3, "heads": 4, "width": 32, "hidden": 56}
ODD: dict[str, Any] = {
    "vocabulary": 7,
    "context": 9,
    "layers": 2,
    "heads": 3,
    "width": 12,
    "hidden": 11,
    "head_width": 6,
}
CONFIGURATIONS: dict[str, llama.Config] = {
    "Llama": llama.Config(**SMALL),
    "Llama, grouped, tied": llama.Config(**SMALL, kv_heads=2, tied=True, base=500.0),
    "Llama, interleaved": llama.Config(**SMALL, kv_heads=2, positions="rotary_interleaved"),
    "Llama, H D is not C": llama.Config(**ODD, kv_heads=1),
    "Llama, ALiBi": llama.Config(**ODD, kv_heads=1, positions="alibi"),
    "Llama, T5's buckets": llama.Config(**SMALL, kv_heads=2, positions="relative"),
    "Llama, no positions": llama.Config(**SMALL, positions="none"),
    "Llama, a length of 1": llama.Config(**{**ODD, "context": 1}),
    "Llama, several tiles": llama.Config(
        vocabulary=31, context=600, layers=2, heads=2, kv_heads=1, width=8, hidden=20
    ),
    "Llama, buckets, tiles": llama.Config(
        vocabulary=31, context=600, layers=2, heads=2, width=8, hidden=20, positions="relative"
    ),
}  # fmt: skip


def check(config: llama.Config, dtype: str, seed: int) -> dict[str, Any]:
    """The worst differences of one configuration, relative to the largest entry of each tensor."""
    rng = np.random.default_rng(seed)
    fresh = llama.initial(config, rng)
    p = map_leaves(lambda a: (a + 0.1 * rng.standard_normal(a.shape)).astype(dtype), fresh)
    ids, targets = rng.integers(0, config.vocabulary, (2, 3, config.context))
    targets[0, 0] = -1
    count = int((targets >= 0).sum())
    loss, back = causal_loss(p, model=llama, ids=ids, targets=targets, ignore=-1, config=config, dropout_mask=None)
    gradient = dict(named_leaves(back(np.asarray(1 / count, dtype))))
    reference, gradients = theirs(config, dtype, p, ids, targets)
    largest = max(float(np.abs(g).max()) for g in gradients.values())
    error, tensor = max(
        # a single token attends itself alone: the gradient of queries and keys is exactly 0
        (float(np.abs(gradient[n] - g).max() / (np.abs(g).max() if np.abs(g).max() > 1e-12 * largest else largest)), n)
        for n, g in gradients.items()
    )
    return {"loss": abs(float(loss) / count - reference) / abs(reference), "gradient": error, "tensor": tensor}


def theirs(config: llama.Config, dtype: str, p: Tree, ids: Any, targets: Any) -> tuple[float, dict[str, Any]]:
    """The mean loss by transformers, and its gradients under our names."""
    import torch
    import transformers

    settings = transformers.LlamaConfig(
        vocab_size=config.vocabulary, max_position_embeddings=config.context, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, num_key_value_heads=config.kv_heads, head_dim=config.head_width,
        hidden_size=config.width, intermediate_size=config.hidden, rms_norm_eps=config.eps, hidden_act="silu",
        rope_parameters={"rope_type": "default", "rope_theta": config.base}, tie_word_embeddings=config.tied,
        attention_bias=False, mlp_bias=False, bos_token_id=None, eos_token_id=None,
        attn_implementation="sdpa" if dtype == "float64" else "eager",
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(settings).to(getattr(torch, dtype))
    if dtype == "float64":
        _without_float32(model, config)
    parameters, places = dict(model.named_parameters()), places_of(config)
    assert set(parameters) == set(places.values()), "not the parameters that were expected"
    given = dict(named_leaves(p))
    with torch.no_grad():
        for path, name in places.items():
            parameters[name].copy_(torch.tensor(_as_theirs(path, given[path], config)))
    extra: dict[str, Any] = {}
    table = None
    if config.positions in ("alibi", "relative", "none"):
        T = ids.shape[1]
        if config.positions == "relative":
            table = torch.tensor(given["relative"], requires_grad=True)
        later = torch.full((T, T), -torch.inf, dtype=model.dtype).triu(1)
        extra["attention_mask"] = (later + _bias(config, T, table, model.dtype)).expand(len(ids), config.heads, T, T)
        extra["position_ids"] = torch.zeros(ids.shape, dtype=torch.long)
    logits = model(torch.tensor(ids), **extra).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=-1)
    loss.backward()
    gradients = {path: _as_ours(path, parameters[name].grad.numpy(), config) for path, name in places.items()}
    if table is not None:
        gradients["relative"] = table.grad.numpy()
    return loss.item(), gradients


def places_of(config: llama.Config) -> dict[str, str]:
    """Our name of every parameter but the table of buckets, and theirs."""
    places = {"token": "model.embed_tokens.weight", "norm.g": "model.norm.weight"}
    if not config.tied:
        places["head"] = "lm_head.weight"
    parts = {
        "norm1.g": "input_layernorm", "norm2.g": "post_attention_layernorm", "attention.Wq": "self_attn.q_proj",
        "attention.Wk": "self_attn.k_proj", "attention.Wv": "self_attn.v_proj", "attention.Wo": "self_attn.o_proj",
        "feed_forward.Wg": "mlp.gate_proj", "feed_forward.W1": "mlp.up_proj", "feed_forward.W2": "mlp.down_proj",
    }  # fmt: skip
    for i in range(config.layers):
        places |= {f"layers.{i}.{ours}": f"model.layers.{i}.{name}.weight" for ours, name in parts.items()}
    return places


def _order(path: str, config: llama.Config, columns: int) -> Any:
    """The columns of a weight in the order of halves: 0, 2, 4 ... 1, 3, 5 ... of every head."""
    one = np.arange(config.head_width)
    if config.positions == "rotary_interleaved" and path.endswith((".Wq", ".Wk")):
        heads = np.arange(0, columns, config.head_width)
        return (heads[:, None] + np.concatenate([one[0::2], one[1::2]])).reshape(-1)
    return np.arange(columns)


def _as_theirs(path: str, a: Any, config: llama.Config) -> Any:
    if a.ndim == 1 or path == "token":
        return a
    return a[:, _order(path, config, a.shape[1])].T.copy()


def _as_ours(path: str, a: Any, config: llama.Config) -> Any:
    if a.ndim == 1 or path == "token":
        return a
    ours = np.empty_like(a.T)
    ours[:, _order(path, config, ours.shape[1])] = a.T
    return ours


def _without_float32(model: Any, config: llama.Config) -> None:
    """Angles and norms in the dtype of the parameters."""
    import torch

    omega = config.base ** (-torch.arange(0, config.head_width, 2, dtype=torch.float64) / config.head_width)

    def angles(x: Any, position_ids: Any) -> Any:
        angle = (position_ids[..., None] * omega).repeat(1, 1, 2)
        return angle.cos(), angle.sin()

    def norm(weight: Any) -> Callable[[Any], Any]:
        return lambda x: torch.nn.functional.rms_norm(x, weight.shape, weight, config.eps)

    model.model.rotary_emb.forward = angles
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = norm(module.weight)


def _bias(config: llama.Config, T: int, table: Any, dtype: Any) -> Any:
    """(H, T, T) by transformers' own functions; 0 for no positions."""
    import torch

    distance = torch.arange(T) - torch.arange(T)[:, None]
    if config.positions == "relative":
        from transformers.models.t5.modeling_t5 import T5Attention

        buckets = T5Attention._relative_position_bucket(
            distance, bidirectional=False, num_buckets=llama.BUCKETS, max_distance=llama.FARTHEST
        )
        return table[buckets].permute(2, 0, 1)
    if config.positions == "alibi":
        return (_their_slopes(config.heads)[:, None, None] * distance).to(dtype)
    return torch.zeros(1, dtype=dtype)


def _their_slopes(heads: int) -> Any:
    import torch
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    return build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)[:, 0, 1]


def rows(seed: int) -> list[dict[str, Any]]:
    """A row a configuration and precision: what `scripts/crosscheck.py` prints."""
    found = []
    for name, config in CONFIGURATIONS.items():
        for dtype, limit in LIMITS.items():
            row = check(config, dtype, seed)
            agrees = row["loss"] <= limit and row["gradient"] <= limit
            found.append({"configuration": name, "dtype": dtype, "limit": limit, "agrees": agrees, **row})
    return found


def scheme_rows(_seed: int) -> list[dict[str, Any]]:
    """The bucket of every distance to 16384 and the slope of every head to 64: the largest difference, as `loss`."""
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    found = []
    N = 16384
    distance = torch.arange(1 - N, N)
    for name, ours, both in (("causal", t5_bias_causal, False), ("bidirectional", t5_bias_bidirectional, True)):
        for K, farthest in ((32, 128), (16, 64), (64, 256)):
            table = np.arange(float(K))[:, None]
            mine = ours(table, queries=N, keys=N, farthest=farthest)[0][0]
            other = T5Attention._relative_position_bucket(
                distance, bidirectional=both, num_buckets=K, max_distance=farthest
            ).numpy()
            found.append(_row(f"T5 {name}, {K} to {farthest}", "buckets", float(np.abs(mine - other).max()), 0.0))
    worst = max(
        float(np.abs(np.array(llama.alibi_slopes(H)) / _their_slopes(H).numpy() - 1).max()) for H in range(1, 65)
    )
    found.append(_row("ALiBi, 1 to 64 heads", "slopes", worst, 1e-6))  # theirs are float32
    return found


def _row(name: str, dtype: str, difference: float, limit: float) -> dict[str, Any]:
    return {
        "configuration": name, "dtype": dtype, "limit": limit, "loss": difference, "gradient": 0.0, "tensor": "",
        "agrees": difference <= limit,
    }  # fmt: skip


ROWS: tuple[Callable[[int], list[dict[str, Any]]], ...] = (rows, scheme_rows)
