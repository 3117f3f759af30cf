"""SciPy as an implementation: what scipy.special has of it, values alone.

refllm verify scripts/adapters/scipy_adapter.py --dtype float32
"""

import numpy
from scipy import special


def softmax(x):
    return special.softmax(x, axis=-1)


def log_softmax(x):
    return special.log_softmax(x, axis=-1)


def gelu_erf(x):
    return x * special.ndtr(x)


def silu(x):
    return x * special.expit(x)


def reduced(losses, reduction):
    return losses if reduction == "none" else getattr(losses, reduction)()


def cross_entropy(logits, *, targets, ignore, reduction):
    if ignore is not None:
        raise NotImplementedError("every place counts")
    each = -numpy.take_along_axis(special.log_softmax(logits, axis=-1), targets[..., None], -1)[..., 0]
    return reduced(each, reduction)


def soft_cross_entropy(logits, targets, *, reduction):
    return reduced(-(targets * special.log_softmax(logits, axis=-1)).sum(-1), reduction)
