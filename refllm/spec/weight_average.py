"""The exponential moving average of the weights."""

from refllm.spec.array import Array, ratio


def average_weights(a: Array, p: Array, *, step: int, decay: float, warmup: bool) -> Array:
    """EMA: a' = β a + (1 - β) p,   β = decay, with `warmup` β = min(decay, (1 + step) / (10 + step))

    To be taken after every step, with the weights p that it left; `step` counts from 1. The warm-up lets the average
    forget the weights with which training began.
    Source:  Polyak & Juditsky 1992; the warm-up as in TensorFlow's ExponentialMovingAverage.
    Shapes:  a (...); p (...) -> a' (...)

    >>> average_weights(array([8.]), array([0.]), step=6, decay=0.75, warmup=True)  # β = 7/16
    array([3.5])
    """
    beta = decay
    if warmup:
        early = ratio(1 + step, 10 + step)
        beta = early if early < decay else decay
    return beta * a + (1 - beta) * p
