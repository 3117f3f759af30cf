"""tinygrad as an implementation, on the device that interprets in Python.

refllm verify scripts/adapters/tinygrad_adapter.py --dtype float32
"""

import os

import numpy

os.environ.setdefault("DEV", "PYTHON")  # before tinygrad is imported
from tinygrad import Context, Tensor, dtypes, nn

DTYPES = ["float64", "float32"]


def tensor(x):
    return Tensor(numpy.array(x, order="C"))


def gradient(total, x):
    try:
        return total.gradient(x)[0].numpy()
    except RuntimeError:  # nothing leads to it
        return numpy.zeros(x.shape, x.numpy().dtype)


def differentiable(forward):
    """A function of tensors as an operation on arrays: y, back = operation(x, W, ..., keyword=...)."""

    def operation(*arrays, **keywords):
        inputs = [tensor(x) for x in arrays]
        y = forward(*inputs, **{n: tensor(x) if hasattr(x, "dtype") else x for n, x in keywords.items()})

        def back(dy):
            total = (y * tensor(dy)).sum()
            dx = tuple(gradient(total, x) for x in inputs)
            return dx if len(dx) > 1 else dx[0]

        return y.numpy(), back

    return operation


def attend(q, k, v, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    if causal:
        mask = Tensor(numpy.tri(T, S, S - T, dtype=bool))
        allowed = mask if allowed is None else mask & allowed
    return q.scaled_dot_product_attention(k, v, attn_mask=allowed)


def with_weights(module, **weights):
    for name, value in weights.items():
        setattr(module, name, value)
    return module


def look_up(E, *, ids):
    y = with_weights(nn.Embedding(*E.shape), weight=E)(ids.reshape(-1))
    return y.reshape(*ids.shape, E.shape[1])


def hard(logits, *, targets, ignore, reduction, smoothing=0.0):
    how = {"ignore_index": -1 if ignore is None else ignore, "label_smoothing": smoothing, "reduction": reduction}
    y = logits.reshape(-1, logits.shape[-1]).sparse_categorical_crossentropy(targets.reshape(-1), **how)
    return y.reshape(*targets.shape) if reduction == "none" else y


def soft(logits, targets, *, reduction):
    y = logits.reshape(-1, logits.shape[-1]).cross_entropy(targets.reshape(-1, logits.shape[-1]), reduction=reduction)
    return y.reshape(*logits.shape[:-1]) if reduction == "none" else y


attention, embedding, cross_entropy, soft_cross_entropy = map(differentiable, (attend, look_up, hard, soft))
smoothed_cross_entropy = cross_entropy
softmax, log_softmax = differentiable(lambda x: x.softmax(-1)), differentiable(lambda x: x.log_softmax(-1))
relu, tanh, silu, gelu_tanh = map(differentiable, (Tensor.relu, Tensor.tanh, Tensor.silu, Tensor.gelu))
linear = differentiable(lambda x, W, b: x.linear(W, b))
matmul, multiply = differentiable(Tensor.matmul), differentiable(Tensor.mul)
layer_norm = differentiable(
    lambda x, g, b, *, eps: with_weights(nn.LayerNorm(g.shape[0], eps=eps), weight=g, bias=b)(x)
)
rms_norm = differentiable(lambda x, g, *, eps: with_weights(nn.RMSNorm(g.shape[0], eps=eps), weight=g)(x))
repeat_heads = differentiable(lambda k, *, groups: k.repeat_interleave(groups, dim=-3))


def stepped(optimiser):
    with Context(TRAINING=1):
        optimiser.step()


def put(into, value):
    into.assign(tensor(value).cast(into.dtype).reshape(into.shape))
    return into.realize()


def adam_like(make, decays):
    def operation(p, g, m, v, *, step, lr, beta1, beta2, eps, decay):
        if decay and not decays:
            raise NotImplementedError("its Adam has no decay")
        parameter = tensor(p).is_param_(True)
        parameter.grad = tensor(g)
        how = {"weight_decay": decay} if decays else {}
        optimiser = make([parameter], lr=lr, b1=beta1, b2=beta2, eps=eps, **how)
        put(optimiser.m[0], m), put(optimiser.v[0], v)
        for power, beta in ((optimiser.b1_t, beta1), (optimiser.b2_t, beta2)):
            power.assign(Tensor([beta ** (step - 1)], dtype=dtypes.float32)).realize()
        stepped(optimiser)
        return tuple(x.numpy().reshape(p.shape) for x in (parameter, optimiser.m[0], optimiser.v[0]))

    return operation


adam, adamw = adam_like(nn.optim.Adam, False), adam_like(nn.optim.AdamW, True)


def sgd(p, g, v, *, lr, momentum):
    parameter = tensor(p).is_param_(True)
    parameter.grad = tensor(g)
    optimiser = nn.optim.SGD([parameter], lr=lr, momentum=momentum)
    if momentum:
        put(optimiser.b[0], v)
    stepped(optimiser)
    return parameter.numpy(), optimiser.b[0].numpy() if momentum else g
