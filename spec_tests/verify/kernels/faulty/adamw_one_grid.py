"""AdamW in a grid of 64 blocks of 1,024 threads without a loop: numbers beyond stay as they are."""

import numpy as np


def adamw(p, g, m, v, *, step, lr, beta1, beta2, eps, decay):
    m2, v2 = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    change = m2 / (1 - beta1**step) / (np.sqrt(v2 / (1 - beta2**step)) + eps)
    new = (p * (1 - lr * decay) - lr * change).reshape(-1)
    new[64 * 1024 :] = p.reshape(-1)[64 * 1024 :]
    return new.reshape(p.shape), m2, v2
