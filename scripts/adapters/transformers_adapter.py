"""transformers as an implementation: its attention, rotations, norms, activations, losses and schedules, as they are.

refllm verify scripts/adapters/transformers_adapter.py --dtype float32
"""

import types

import torch
from torch_adapter import differentiable  # it lies beside this file
from transformers import LlamaConfig, optimization
from transformers.activations import ACT2FN
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.models.llama import modeling_llama as llama
from transformers.trainer_pt_utils import LabelSmoother

DTYPES = ["float64", "float32"]


def mask_of(allowed, causal, T, S, dtype):
    """What is added to the scores: the least number of the dtype where a key may not be seen."""
    if allowed is None and not causal:
        return None
    mask = torch.ones(T, S, dtype=torch.bool)
    mask = mask.tril(S - T) if causal else mask
    mask = mask if allowed is None else mask & allowed
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def attend(q, k, v, *, causal, allowed):
    """Llama's eager attention takes (B, H, T, D); a batch of sequences has one head."""
    mask = mask_of(allowed, causal, q.shape[-2], k.shape[-2], q.dtype)
    mask = mask.unsqueeze(-3) if mask is not None and mask.ndim == q.ndim == 3 else mask
    wide = [z.unsqueeze(-3) if z.ndim == 3 else z.reshape((1,) * (4 - z.ndim) + z.shape) for z in (q, k, v)]
    layer = types.SimpleNamespace(num_key_value_groups=1, training=False)
    y, _ = llama.eager_attention_forward(layer, *wide, mask, scaling=q.shape[-1] ** -0.5)
    return y.transpose(1, 2).reshape(*q.shape[:-1], v.shape[-1])


def turn(x, *, positions, base):
    """Positions are those of a sequence, the same for all heads."""
    if positions.ndim > 2 or (x.ndim != positions.ndim + 2 and positions.ndim == 2):
        raise NotImplementedError("positions are (T,), or (B, T) for (B, H, T, D)")
    wide = x.reshape((1,) * (4 - x.ndim) + x.shape)
    how = {"rope_type": "default", "rope_theta": base}
    config = LlamaConfig(hidden_size=x.shape[-1], num_attention_heads=1, head_dim=x.shape[-1], rope_parameters=how)
    turns = llama.LlamaRotaryEmbedding(config)(wide, positions.reshape(-1, x.shape[-2]))
    return llama.apply_rotary_pos_emb(wide, wide, *turns)[0].reshape(x.shape)


def smoothed(logits, *, targets, ignore, smoothing, reduction):
    if reduction != "mean":
        raise NotImplementedError("LabelSmoother gives the mean")
    smoother = LabelSmoother(epsilon=smoothing, ignore_index=-100 if ignore is None else ignore)
    return smoother({"logits": logits.reshape(-1, logits.shape[-1])}, targets.reshape(-1))


def hard(logits, *, targets, ignore, reduction):
    if reduction != "mean":
        raise NotImplementedError("ForCausalLMLoss gives the mean")
    ignore = -100 if ignore is None else ignore
    return ForCausalLMLoss(logits, None, logits.shape[-1], ignore_index=ignore, shift_labels=targets)


def root_mean_square(x, g, *, eps):
    return torch.func.functional_call(llama.LlamaRMSNorm(len(g), eps), {"weight": g}, (x,))


attention, rotary_halves, rms_norm = map(differentiable, (attend, turn, root_mean_square))
smoothed_cross_entropy, cross_entropy = differentiable(smoothed), differentiable(hard)
repeat_heads = differentiable(
    lambda k, *, groups: llama.repeat_kv(k.reshape(-1, *k.shape[-3:]), groups).reshape(*k.shape[:-3], -1, *k.shape[-2:])
)
gelu_erf, gelu_tanh, relu, silu = (
    differentiable(lambda x, name=name: ACT2FN[name](x)) for name in ("gelu", "gelu_new", "relu", "silu")
)


def warmup_cosine(*, step, peak, warmup, total, floor):
    return peak * optimization._get_cosine_schedule_with_warmup_lr_lambda(
        step, num_warmup_steps=warmup, num_training_steps=total, num_cycles=0.5, min_lr_rate=floor / peak
    )
