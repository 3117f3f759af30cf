"""PyTorch's own modules, fused attention, losses and optimisers, as they are.

refllm verify scripts/adapters/torch_modules_adapter.py --dtype float32
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (its customary name)
from torch_adapter import array, differentiable, tensor  # it lies beside this file

DTYPES = ["float64", "float32"]


def applied(module, *inputs, weights, **keywords):
    """The module with these tensors in the place of its parameters; gradients reach them."""
    return torch.func.functional_call(module, weights, inputs, keywords, strict=False)


def mask_of(allowed, causal, T, S):
    if not causal:
        return None if allowed is None else allowed.expand(*allowed.shape[:-2], T, S)
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T)
    return mask if allowed is None else mask & allowed


def attend(q, k, v, *, causal, allowed):
    """With four dimensions the fused kernel is reached; a batch of sequences has one head."""
    mask = mask_of(allowed, causal, q.shape[-2], k.shape[-2])
    wide = [z.unsqueeze(-3) if z.ndim == 3 else z.reshape((1,) * (4 - z.ndim) + z.shape) for z in (q, k, v)]
    mask = mask.unsqueeze(-3) if mask is not None and mask.ndim == q.ndim == 3 else mask
    plain = causal and allowed is None and q.shape[-2] == k.shape[-2]
    how = {"is_causal": True} if plain else {"attn_mask": mask}
    return F.scaled_dot_product_attention(*wide, **how).reshape(*q.shape[:-1], v.shape[-1])


def many_heads(x, memory, weights, heads, mask, need_weights=False):
    """With `need_weights` it computes the scores by themselves, without a fused kernel."""
    C = x.shape[-1]
    module = nn.MultiheadAttention(C, heads, batch_first=True, dtype=x.dtype)
    x, memory = (z if z.ndim == 3 else z[None] for z in (x, memory))
    if mask is not None:
        shape = (len(x), heads, x.shape[1], memory.shape[1])
        mask = ~mask.reshape((1,) * (4 - mask.ndim) + mask.shape).expand(shape).reshape(-1, *shape[2:])
    return applied(module, x, memory, memory, weights=weights, attn_mask=mask, need_weights=need_weights)[0]


def attend_self(x, p, *, heads, causal, allowed):
    if p["Wqkv"].shape[1] != 3 * x.shape[-1]:
        raise NotImplementedError("a head is as wide as the model over the number of heads")
    weights = {"in_proj_weight": p["Wqkv"].T, "in_proj_bias": p["bqkv"], "out_proj.weight": p["Wo"].T}
    weights["out_proj.bias"] = p["bo"]
    return many_heads(x, x, weights, heads, mask_of(allowed, causal, x.shape[-2], x.shape[-2])).reshape(x.shape)


def read(x, memory, p, *, heads, scaled, allowed):
    if not scaled or "bq" not in p or p["Wq"].shape[1] != x.shape[-1]:
        raise NotImplementedError("it is scaled, has biases, and heads as wide as the model over their number")
    weights = {"in_proj_weight": torch.cat([p["Wq"], p["Wkv"]], 1).T, "in_proj_bias": torch.cat([p["bq"], p["bkv"]])}
    weights |= {"out_proj.weight": p["Wo"].T, "out_proj.bias": p["bo"]}
    return many_heads(x, memory, weights, heads, allowed, need_weights=True).reshape(x.shape)


def recurrent(make, x, states, Wx, Wh, b, valid):
    """A padded batch is packed, which is why padding stands at the end of a sequence alone."""
    module = make(x.shape[-1], len(Wh), batch_first=True, dtype=x.dtype)
    weights = {"weight_ih_l0": Wx.T, "weight_hh_l0": Wh.T, "bias_ih_l0": b, "bias_hh_l0": torch.zeros_like(b)}
    start = states[0][None] if len(states) == 1 else tuple(s[None] for s in states)
    if valid is None:
        return applied(module, x, start, weights=weights)
    lengths = valid.sum(1)
    if not (valid == (torch.arange(valid.shape[1]) < lengths[:, None])).all() or not lengths.all():
        raise NotImplementedError("a packed sequence is padded at its end, and not empty")
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, last = applied(module, packed, start, weights=weights)
    y = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]
    h = last if len(states) == 1 else last[0]
    return torch.where(valid[..., None], y, h[0][:, None]), last


def long_short(x, h, c, Wx, Wh, b, *, valid):
    y, (_, last) = recurrent(nn.LSTM, x, [h, c], Wx, Wh, b, valid)
    return y, last[0]


def hard(logits, *, targets, ignore, reduction, smoothing=0.0):
    how = {"reduction": reduction, "label_smoothing": smoothing, "ignore_index": -100 if ignore is None else ignore}
    y = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), **how)
    return y.reshape(targets.shape) if reduction == "none" else y


attention, self_attention, cross_attention, lstm = map(differentiable, (attend, attend_self, read, long_short))
rnn = differentiable(lambda x, h, Wx, Wh, b, *, valid: recurrent(nn.RNN, x, [h], Wx, Wh, b, valid)[0])
softmax, log_softmax = differentiable(lambda x: F.softmax(x, -1)), differentiable(lambda x: F.log_softmax(x, -1))
layer_norm = differentiable(lambda x, g, b, *, eps: F.layer_norm(x, g.shape, g, b, eps))
rms_norm = differentiable(lambda x, g, *, eps: F.rms_norm(x, g.shape, g, eps))
relu, silu, tanh, gelu_erf = map(differentiable, (F.relu, F.silu, torch.tanh, F.gelu))
gelu_tanh = differentiable(lambda x: F.gelu(x, approximate="tanh"))
cross_entropy = smoothed_cross_entropy = differentiable(hard)
mean_squared_error = differentiable(F.mse_loss)


def updated(make, p, g, state, **how):
    """One step of an optimiser that was stopped with this state."""
    p = tensor(p).requires_grad_()
    p.grad = tensor(g)
    optimiser = make([p], **how)
    optimiser.state[p] = {name: tensor(x) if hasattr(x, "dtype") else torch.tensor(x) for name, x in state.items()}
    optimiser.step()
    return array(p), optimiser.state[p]


def adam_like(make):
    def operation(p, g, m, v, *, step, lr, beta1, beta2, eps, decay):
        state = {"step": step - 1.0, "exp_avg": m, "exp_avg_sq": v}
        how = {"lr": lr, "betas": (beta1, beta2), "eps": eps, "weight_decay": decay}
        p, state = updated(make, p, g, state, **how)
        return p, array(state["exp_avg"]), array(state["exp_avg_sq"])

    return operation


adam, adamw = adam_like(torch.optim.Adam), adam_like(torch.optim.AdamW)


def sgd(p, g, v, *, lr, momentum):
    p, state = updated(torch.optim.SGD, p, g, {"momentum_buffer": v}, lr=lr, momentum=momentum)
    return p, array(state["momentum_buffer"]) if momentum else g


def clip_by_global_norm(g, *, clip):
    parameters = [nn.Parameter(torch.zeros_like(tensor(x))) for x in g]
    for parameter, x in zip(parameters, g, strict=True):
        parameter.grad = tensor(x)
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    return array(norm), [array(parameter.grad) for parameter in parameters]
