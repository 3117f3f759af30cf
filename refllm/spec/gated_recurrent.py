"""The gated recurrent unit over a sequence, in its two published forms.

They differ in where the reset gate acts: on the state, before it is multiplied with a matrix, or on the product. The
two have different results for the same weights. The first columns of Wx, Wh and b are the reset gate's, then come
those of the update gate and of the new state.
"""

from refllm.spec.array import Array, Pullback, concatenate, rows, sigmoid, stack, tanh, zeros
from refllm.spec.recurrent import kept, of_products, of_what_enters


def gru_reset_before(
    x: Array, h: Array, Wx: Array, Wh: Array, b: Array, *, token_mask: Array | None
) -> tuple[Array, Pullback]:
    """GRU: h_t = z h_{t-1} + (1 - z) n,   n = tanh(x_t Wxn + (r h_{t-1}) Whn + bn),
    r, z = σ of the first two thirds of x_t Wx + h_{t-1} Wh + b;   y = h_1 ... h_T,   h_0 = h

    Where `token_mask` is false (None: nowhere) there is no token and the state passes unchanged.
    Source:  Cho et al. 2014 (arXiv:1406.1078) eq. 5 to 8, in the third version of the paper.
    Shapes:  x (B, T, I); h (B, N); Wx (I, 3*N); Wh (N, 3*N); b (3*N,); token_mask bool (B, T) -> y (B, T, N)
    Back:    from the last step to the first:   dz = dh (h_{t-1} - n),   dn = dh (1 - z) (1 - n²),   du = dn Whnᵀ,
             dr = du h_{t-1};   with a = (dr r (1 - r), dz z (1 - z)), the gradient of the sums of the gates,
             dh_{t-1} = dy_{t-1} + dh z + du r + a Whgᵀ;   dWhn = Σ (r h_{t-1})ᵀ dn; the other weights as in RNN.

    >>> h, Wh = ones((1, 1)), array([[0., 0., 2 * log(2.)]])  # r = z = 1/2,   n = tanh(r · 2 log 2) = 3/5
    >>> gru_reset_before(zeros((1, 1, 1)), h, zeros((1, 3)), Wh, zeros(3), token_mask=None)[0]
    array([[[0.8]]])
    """
    N, T, states, steps = h.shape[-1], x.shape[1], [h], []
    G, C = Wh[:, : 2 * N], Wh[:, 2 * N :]
    for t in range(T):
        s = x[:, t] @ Wx + b
        r, z = _gates(s[:, : 2 * N] + states[t] @ G)
        n = tanh(s[:, 2 * N :] + (r * states[t]) @ C)
        states.append(kept(token_mask, t, z * states[t] + (1 - z) * n, states[t]))
        steps.append((r, z, n))

    def gru_reset_before_back(dy: Array) -> tuple[Array, ...]:
        dh, ds = zeros(h.shape, h), [zeros((h.shape[0], 3 * N), h)] * T
        for t in reversed(range(T)):
            (r, z, n), before = steps[t], states[t]
            dh = dy[:, t] + dh
            dn = dh * (1 - z) * (1 - n * n)
            du = dn @ C.T
            a = concatenate([du * before * r * (1 - r), dh * (before - n) * z * (1 - z)], axis=-1)
            ds[t] = kept(token_mask, t, concatenate([a, dn], axis=-1), 0)
            dh = kept(token_mask, t, dh * z + du * r + a @ G.T, dh)
        dx, dWx, db = of_what_enters(x, ds, Wx)
        dG = of_products(states[:-1], [s[:, : 2 * N] for s in ds])
        reset = [r * before for before, (r, _, _) in zip(states, steps, strict=False)]
        dC = of_products(reset, [s[:, 2 * N :] for s in ds])
        return dx, dh, dWx, concatenate([dG, dC], axis=-1), db

    return stack(states[1:], axis=1), gru_reset_before_back


def gru_reset_after(
    x: Array, h: Array, Wx: Array, Wh: Array, b: Array, c: Array, *, token_mask: Array | None
) -> tuple[Array, Pullback]:
    """GRU: h_t = z h_{t-1} + (1 - z) n,   n = tanh(x_t Wxn + bn + r (h_{t-1} Whn + c)),
    r, z = σ of the first two thirds of x_t Wx + h_{t-1} Wh + b;   y = h_1 ... h_T,   h_0 = h

    The form of cuDNN and PyTorch. The bias c stands inside the product with the reset gate, so that it cannot join b.
    Where `token_mask` is false (None: nowhere) there is no token and the state passes unchanged.
    Source:  Cho et al. 2014 (arXiv:1406.1078) eq. 5 to 8, in the first version of the paper.
    Shapes:  x (B, T, I); h (B, N); Wx (I, 3*N); Wh (N, 3*N); b (3*N,); c (N,); token_mask bool (B, T) -> y (B, T, N)
    Back:    from the last step to the first:   dz = dh (h_{t-1} - n),   dn = dh (1 - z) (1 - n²),
             dr = dn (h_{t-1} Whn + c);   a = (dr r (1 - r), dz z (1 - z), dn r) belongs to h_{t-1} Wh,
             dh_{t-1} = dy_{t-1} + dh z + a Whᵀ,   dc = Σ dn r;   to x_t Wx + b belongs a with dn as its last third.

    >>> h, c = ones((1, 1)), array([2 * log(2.)])  # r = z = 1/2, and r halves c too: n = tanh(log 2) = 3/5
    >>> gru_reset_after(zeros((1, 1, 1)), h, zeros((1, 3)), zeros((1, 3)), zeros(3), c, token_mask=None)[0]
    array([[[0.8]]])
    """
    N, T, states, steps = h.shape[-1], x.shape[1], [h], []
    for t in range(T):
        s, u = x[:, t] @ Wx + b, states[t] @ Wh
        r, z = _gates(s[:, : 2 * N] + u[:, : 2 * N])
        q = u[:, 2 * N :] + c
        n = tanh(s[:, 2 * N :] + r * q)
        states.append(kept(token_mask, t, z * states[t] + (1 - z) * n, states[t]))
        steps.append((r, z, n, q))

    def gru_reset_after_back(dy: Array) -> tuple[Array, ...]:
        nothing = zeros((h.shape[0], 3 * N), h)
        dh, ds, du = zeros(h.shape, h), [nothing] * T, [nothing] * T
        for t in reversed(range(T)):
            (r, z, n, q), before = steps[t], states[t]
            dh = dy[:, t] + dh
            dn = dh * (1 - z) * (1 - n * n)
            a = concatenate([dn * q * r * (1 - r), dh * (before - n) * z * (1 - z)], axis=-1)
            ds[t] = kept(token_mask, t, concatenate([a, dn], axis=-1), 0)
            du[t] = kept(token_mask, t, concatenate([a, dn * r], axis=-1), 0)
            dh = kept(token_mask, t, dh * z + du[t] @ Wh.T, dh)
        dx, dWx, db = of_what_enters(x, ds, Wx)
        dWh = of_products(states[:-1], du)
        return dx, dh, dWx, dWh, db, rows(stack(du, axis=1))[2 * N :]

    return stack(states[1:], axis=1), gru_reset_after_back


def _gates(s: Array) -> tuple[Array, Array]:
    """Reset and update from the halves of s (B, 2 N)."""
    N = s.shape[-1] // 2
    return sigmoid(s[:, :N]), sigmoid(s[:, N:])
