"""PyTorch: softmax, layer norm and attention, for `refllm verify`. Put your module or kernel in the place of one.

An operation is given NumPy arrays and keywords; it returns its value and a function from the gradient of the value to
the gradients of the arrays. `differentiable` makes one of a function of tensors, on DEVICE.
"""

import torch
from torch.nn import functional as F  # noqa: N812  (its customary name)

DTYPES = ["float64", "float32", "bfloat16"]
DEVICE = "cpu"
PRECISION = {"torch": None}  # None: that of the arrays


def use_dtype(dtype):
    """NumPy has no bfloat16: its arrays are float32, and this is called first."""
    PRECISION["torch"] = torch.bfloat16 if dtype == "bfloat16" else None


def differentiable(forward):
    def tensor(x):
        return torch.tensor(x.copy(), dtype=PRECISION["torch"], device=DEVICE)

    def array(x):
        return (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy().copy()

    def operation(*arrays, **keywords):
        inputs = [tensor(x).requires_grad_() for x in arrays]
        y = forward(*inputs, **keywords)

        def back(dy):
            gradients = torch.autograd.grad(y, inputs, tensor(dy), retain_graph=True)
            found = tuple(array(x) for x in gradients)
            return found if len(found) > 1 else found[0]

        return array(y), back

    return operation


@differentiable
def softmax(x):
    nothing = (x == -torch.inf).all(-1, keepdim=True)  # a row of only -infinity gives zeros
    return torch.where(nothing, 0, torch.softmax(torch.where(nothing, 0, x), -1))


@differentiable
def layer_norm(x, g, b, *, eps):
    return F.layer_norm(x, g.shape, g, b, eps)


@differentiable
def attention(q, k, v, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    mask = torch.ones(T, S, dtype=torch.bool, device=DEVICE).tril(S - T if causal else S)
    if allowed is not None:
        mask = mask & torch.tensor(allowed.copy(), device=DEVICE)
    some = mask.any(-1, keepdim=True)  # a query without any key gives zeros
    return torch.where(some, F.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~some), 0)
