"""GPT-2 on one page: the mean loss of the next token, and its gradient for every parameter, by hand.

B texts of T tokens; V words; C width; H heads of D = C / H; F feed-forward width. Weights are (in, out), y = x W.

The lines of a forward pass are numbered. Its backward pass takes them in reverse: from the gradient of what line (n)
made, it makes that of what line (n) used. dx stands for the gradient of the loss with respect to x. The rules:

    y = x W + b   hence   dx = dy Wᵀ,   dW = xᵀ dy over all B T rows,   db = the sum of all rows of dy
    y = f(x)      hence   dx = dy f'(x)
    y = E[i]      hence   row j of dE = the sum of the rows of dy where i = j
    x used twice  hence   dx = the sum of two gradients
"""

# fmt: off
from refllm.spec.array import (  # noqa: I001
    Array, Tree, arange, concatenate, exp, flat, log, mean, one_hot, pi, pick, rows, scatter_add, sqrt, sum, swap, tanh,
    top, total, where,
)


def gpt_loss_and_gradient(p: Tree, *, ids: Array, targets: Array, heads: int, eps: float) -> tuple[Array, Tree]:
    """The loss of p for ids (B, T) and targets (B, T), and its gradient, a tree like p (Radford et al. 2019)."""
    (B, T), V, S = ids.shape, len(p["token"]), len(p["position"])

    # --- forward ---
    x = p["token"][ids] + p["position"][arange(T)]                     # (1)    (B, T, C)
    saved = []
    for q in p["layers"]:                                              # (2)
        x, kept = layer(x, q, heads, eps)
        saved.append(kept)
    n, of_norm = norm(x, p["norm"], eps)                               # (3)    (B, T, C)
    z = n @ p["token"].T                                               # (4)    (B, T, V)  the head is the token table
    c = z - top(z)                                                     # (5)    the shift cancels
    log_p = c - log(sum(exp(c)))                                       # (6)    log of softmax(z)
    loss = -total(pick(log_p, targets)) / (B * T)                      # (7)    the mean of -log p[target]

    # --- backward ---
    dz = (exp(log_p) - one_hot(targets, V)) / (B * T)                  # (7-5)  ∂(-log p_t)/∂z_i = p_i - [i = t]
    dtoken = flat(dz).T @ flat(n)                                      # (4)    z = n tokenᵀ
    dn = dz @ p["token"]                                               # (4)
    dx, dnorm = norm_back(dn, p["norm"], of_norm)                      # (3)
    dlayers: list[Tree] = []
    for q, kept in zip(p["layers"][::-1], saved[::-1], strict=True):   # (2)    from the last to the first
        dx, dlayer = layer_back(dx, q, kept)
        dlayers.insert(0, dlayer)
    dtoken = dtoken + scatter_add(ids, dx, V)                          # (1)    the table is used twice: see (4)
    dx_of_all_texts = sum(dx, axis=0, keepdims=False)                  # (1)    (T, C)
    dposition = scatter_add(arange(T), dx_of_all_texts, S)             # (1)
    return loss, {"token": dtoken, "position": dposition, "layers": dlayers, "norm": dnorm}


def layer(x: Array, p: Tree, heads: int, eps: float) -> tuple[Array, tuple[Array, ...]]:
    """h = x + attention(LN(x)),  y = h + feed_forward(LN(h)); and what the backward pass needs of it."""
    T, D, a, f = x.shape[1], x.shape[2] // heads, p["attention"], p["feed_forward"]
    n1, of_n1 = norm(x, p["norm1"], eps)                               # (1)    (B, T, C)
    qkv = n1 @ a["Wqkv"] + a["bqkv"]                                   # (2)    (B, T, 3 C)
    q, k, v = (cut(y, heads) for y in thirds(qkv))                     # (3)    each (B, H, T, D)
    s = q @ swap(k) / sqrt(D)                                          # (4)    (B, H, T, T)  query by key
    s = where(arange(T) <= arange(T)[:, None], s, float("-inf"))       # (5)    causal: no key after the query
    e = exp(s - top(s))                                                # (6)    the shift cancels
    P = e / sum(e)                                                     # (7)    softmax of every row
    m = joined(P @ v)                                                  # (8)    (B, T, C)
    h = x + m @ a["Wo"] + a["bo"]                                      # (9)
    n2, of_n2 = norm(h, p["norm2"], eps)                               # (10)
    u = n2 @ f["W1"] + f["b1"]                                         # (11)   (B, T, F)
    w = u + u * u * u * 44715 / 10**6                                  # (12)   u + 0.044715 u³
    t = tanh(sqrt(2 / pi()) * w)                                       # (13)
    g = u * (1 + t) / 2                                                # (14)   GELU in the tanh form
    y = h + g @ f["W2"] + f["b2"]                                      # (15)   (B, T, C)
    return y, (of_n1, n1, q, k, v, P, m, of_n2, n2, u, t, g)


def layer_back(dy: Array, p: Tree, kept: tuple[Array, ...]) -> tuple[Array, Tree]:
    """dx, and the gradients of the layer's parameters."""
    of_n1, n1, q, k, v, P, m, of_n2, n2, u, t, g = kept
    H, D, a, f = q.shape[1], q.shape[3], p["attention"], p["feed_forward"]

    dg = dy @ f["W2"].T                                                # (15)   y = h + g W2 + b2
    dW2, db2 = flat(g).T @ flat(dy), rows(dy)                          # (15)
    du, dt = dg * (1 + t) / 2, dg * u / 2                              # (14)   g = u (1 + t) / 2
    dw = dt * (1 - t * t) * sqrt(2 / pi())                             # (13)   tanh' = 1 - tanh²
    du = du + dw * (1 + u * u * (3 * 44715) / 10**6)                   # (12)   dw/du = 1 + 3 · 0.044715 u²
    dn2 = du @ f["W1"].T                                               # (11)   u = n2 W1 + b1
    dW1, db1 = flat(n2).T @ flat(du), rows(du)                         # (11)
    dh, dnorm2 = norm_back(dn2, p["norm2"], of_n2)                     # (10)   n2 = LN(h)
    dh = dh + dy                                                       # (15)   h is used twice

    dm = dh @ a["Wo"].T                                                # (9)    h = x + m Wo + bo
    dWo, dbo = flat(m).T @ flat(dh), rows(dh)                          # (9)
    dheads = cut(dm, H)                                                # (8)    m = joined(P v)
    dP, dv = dheads @ swap(v), swap(P) @ dheads                        # (8)
    # a masked key has P = 0, and so ds = 0
    ds = P * (dP - sum(P * dP))                                        # (7-5)  ∂P_j/∂s_i = P_j ([i = j] - P_i)
    dq, dk = ds @ k / sqrt(D), swap(ds) @ q / sqrt(D)                  # (4)    s = q kᵀ / √D
    dqkv = beside(joined(dq), joined(dk), joined(dv))                  # (3)    (B, T, 3 C)
    dn1 = dqkv @ a["Wqkv"].T                                           # (2)    qkv = n1 Wqkv + bqkv
    dWqkv, dbqkv = flat(n1).T @ flat(dqkv), rows(dqkv)                 # (2)
    dx, dnorm1 = norm_back(dn1, p["norm1"], of_n1)                     # (1)    n1 = LN(x)
    dx = dx + dh                                                       # (9)    x is used twice

    dattention = {"Wqkv": dWqkv, "bqkv": dbqkv, "Wo": dWo, "bo": dbo}
    dfeed_forward = {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}
    return dx, {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "feed_forward": dfeed_forward}


def norm(x: Array, p: Tree, eps: float) -> tuple[Array, tuple[Array, Array]]:
    """Layer norm: every row less its mean and divided by its deviation, times a gain, plus a bias."""
    c = x - mean(x)                                                    # (1)
    r = 1 / sqrt(mean(c * c) + eps)                                    # (2)    (B, T, 1)
    n = c * r                                                          # (3)
    return p["g"] * n + p["b"], (n, r)                                 # (4)


def norm_back(dy: Array, p: Tree, kept: tuple[Array, Array]) -> tuple[Array, Tree]:
    """dx, and the gradients of gain and bias."""
    n, r = kept
    dg, db, dn = rows(dy * n), rows(dy), dy * p["g"]                   # (4)    y = g n + b
    dc = r * (dn - n * mean(dn * n))                                   # (3, 2) n = c r, and ∂r/∂c_i = -r³ c_i / C
    dx = dc - mean(dc)                                                 # (1)    c = x - mean(x)
    return dx, {"g": dg, "b": db}


def cut(x: Array, heads: int) -> Array:
    """(B, T, H D) -> (B, H, T, D). It moves numbers and changes none: `joined` takes gradients back."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).swapaxes(1, 2)


def joined(x: Array) -> Array:
    """(B, H, T, D) -> (B, T, H D). `cut` takes gradients back."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3])


def thirds(x: Array) -> tuple[Array, Array, Array]:
    """The columns of q, of k and of v. `beside` takes gradients back."""
    C = x.shape[-1] // 3
    return x[..., :C], x[..., C : 2 * C], x[..., 2 * C :]


def beside(q: Array, k: Array, v: Array) -> Array:
    """(B, T, C) each -> (B, T, 3 C)"""
    return concatenate([q, k, v], axis=-1)
