"""One recurrent layer over a sequence: the step of Elman and the LSTM, and back-propagation through time.

Both keep their arrays by time, (T, B, ...). Only what a step needs of the step before is done step by step: the inputs
of all times are projected in one product before, and the gradients of the weights are one product each after.
"""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array, equal_entries, namespace, overflow_is_expected, zero_where_not
from refllm.differentiable import differentiable


@differentiable
def rnn(
    x: Array, h: Array, Wx: Array, Wh: Array, b: Array, *, token_mask: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array, Array, Array]]]:
    """RNN: h_t = tanh(x_t Wx + h_{t-1} Wh + b),   y = h_1 ... h_T,   h_0 = h

    Where `token_mask` is false (None: nowhere) there is no token and the state passes unchanged, h_t = h_{t-1}.
    Source:  Elman 1990; Werbos 1990 for back-propagation through time; documents 003 sec. 4.1.
    Shapes:  x (B, T, I); h (B, N); Wx (I, N); Wh (N, N); b (N,); token_mask bool (B, T), or None -> y (B, T, N)
    Back:    from the last step to the first dh_t = dy_t + dz_{t+1} Whᵀ,   dz_t = dh_t (1 - h_t²); then dx = dz Wxᵀ;
             dh = dz_1 Whᵀ;  dWx = Σ x_tᵀ dz_t;  dWh = Σ h_{t-1}ᵀ dz_t;  db = Σ dz_t. Where there is no token,
             dz_t = 0 and dh_t passes to the step before.
    Special: the last state is y_T, also where the last places have no token.
    Raises:  ValueError for shapes that do not agree, or a `token_mask` that is not boolean (B, T).

    >>> W = ones((1, 1))
    >>> y, back = rnn(zeros((1, 3, 1)), array([[1000.0]]), W, W, zeros(1), token_mask=None)
    >>> (y.ravel() - [1.0, np.tanh(1.0), np.tanh(np.tanh(1.0))]).round(12).tolist()  # a tanh a step
    [0.0, 0.0, 0.0]
    """
    (B, T, _), N = x.shape, h.shape[1]
    xp, live = namespace(x), None if token_mask is None else token_mask.T[..., None]  # (T, B, 1)
    rows = _by_time(x, token_mask)
    z = (rows @ Wx + b).reshape(T, B, N)
    states = xp.empty((T + 1, B, N), x.dtype)  # h_0 ... h_T
    states[0] = h
    for t in range(T):
        z[t] += states[t] @ Wh
        xp.tanh(z[t], out=z[t])  # z_t gives its place to h_t
        states[t + 1] = z[t] if live is None else xp.where(live[t], z[t], states[t])

    def back(dy: Array) -> tuple[Array, Array, Array, Array, Array]:
        dz = 1 - z * z  # of all times at once; step t then multiplies it by its dh_t
        if live is not None:
            dz *= live
        dh, transposed = xp.zeros_like(h), Wh.T.copy()  # a copy in the order in which each step reads it
        for t in reversed(range(T)):
            dh = dh + dy[:, t]
            dz[t] *= dh  # dz_t = dh_t (1 - h_t²)
            before = dz[t] @ transposed
            dh = before if live is None else xp.where(live[t], before, dh)
        dx, dWx, dWh, db = _products(rows, states, dz, Wx)
        return dx, dh, dWx, dWh, db

    return states[1:].swapaxes(0, 1), back


@differentiable
def lstm(
    x: Array, h: Array, c: Array, Wx: Array, Wh: Array, b: Array, *, token_mask: Array | None
) -> tuple[tuple[Array, Array], Callable[[Array, Array], tuple[Array, Array, Array, Array, Array, Array]]]:
    """LSTM: i, f, g, o = σ, σ, tanh, σ of the quarters of x_t Wx + h_{t-1} Wh + b:   input, forget, cell, output;
    c_t = f c_{t-1} + i g,   h_t = o tanh(c_t),   y = h_1 ... h_T,   h_0 = h,   c_0 = c;   also c_T is returned

    Where `token_mask` is false (None: nowhere) there is no token and both states pass unchanged.
    Source:  Hochreiter & Schmidhuber 1997; Gers et al. 2000 for the forget gate; documents 003 sec. 5.2 (code).
    Shapes:  x (B, T, I); h (B, N); c (B, N); Wx (I, 4*N); Wh (N, 4*N); b (4*N,); token_mask bool (B, T), or None
             -> y (B, T, N); c_T (B, N)
    Back:    from the last step to the first dh_t = dy_t + dz_{t+1} Whᵀ,   dc_t = f_{t+1} dc_{t+1} + dh_t o (1 - tanh²
             c_t);   dz_t = (dc_t g i(1-i), dc_t c_{t-1} f(1-f), dc_t i (1-g²), dh_t tanh(c_t) o(1-o)); the rest as in
             RNN. Where there is no token, dz_t = 0, and dh_t and dc_t pass to the step before.
    Special: σ(z) = 1 / (1 + e^-z) keeps its digits for z → -∞. The last state is y_T and c_T.
    Raises:  ValueError for shapes that do not agree, or a `token_mask` that is not boolean (B, T).

    >>> b = array([-1000.0, 1000.0, 0.0, 1000.0])  # nothing enters, nothing is forgotten, everything is shown
    >>> none = zeros((1, 4))
    >>> (y, c), back = lstm(ones((1, 3, 1)), zeros((1, 1)), ones((1, 1)), none, none, b, token_mask=None)
    >>> c.ravel().tolist(), (y / np.tanh(1.0)).round(12).ravel().tolist()
    ([1.0], [1.0, 1.0, 1.0])
    """
    (B, T, _), N, G = x.shape, h.shape[1], len(b)
    xp, live = namespace(x), None if token_mask is None else token_mask.T[..., None]  # (T, B, 1)
    rows = _by_time(x, token_mask)
    z = (rows @ Wx + b).reshape(T, B, G)
    gates = z.reshape(T, B, 4, N)  # the same memory: the gates take the place of what they are of
    states, cells = xp.empty((T + 1, B, N), x.dtype), xp.empty((T + 1, B, N), x.dtype)  # of the times 0 ... T
    squashed = xp.empty((T, B, N), x.dtype)  # tanh(c_t)
    states[0], cells[0] = h, c
    for t in range(T):
        z[t] += states[t] @ Wh
        _activate(gates[t])
        i, f, g, o = (gates[t, :, k] for k in range(4))
        xp.multiply(f, cells[t], out=cells[t + 1])
        cells[t + 1] += i * g  # c_t = f c_{t-1} + i g
        xp.tanh(cells[t + 1], out=squashed[t])
        xp.multiply(o, squashed[t], out=states[t + 1])  # h_t = o tanh(c_t)
        if live is not None:
            states[t + 1] = xp.where(live[t], states[t + 1], states[t])
            cells[t + 1] = xp.where(live[t], cells[t + 1], cells[t])

    def back(dy: Array, dc_T: Array) -> tuple[Array, Array, Array, Array, Array, Array]:
        i, f, g, o = (gates[:, :, k] for k in range(4))
        # dz_t = (dc_t g i (1 - i), dc_t c_{t-1} f (1 - f), dc_t i (1 - g²), dh_t tanh(c_t) o (1 - o)). All but dc_t and
        # dh_t is formed for all times at once; step t then multiplies it by its dc_t and dh_t.
        dz = xp.empty_like(gates)
        dz[:, :, 0] = g * i * (1 - i)
        dz[:, :, 1] = cells[:-1] * f * (1 - f)
        dz[:, :, 2] = i * (1 - g * g)
        dz[:, :, 3] = squashed * o * (1 - o)
        if live is not None:
            dz *= live[..., None]
        into_cell = o * (1 - squashed * squashed)  # dc_t = f_{t+1} dc_{t+1} + dh_t o (1 - tanh² c_t)
        dh, dc, transposed = xp.zeros_like(h), dc_T.copy(), Wh.T.copy()  # a copy in the order in which a step reads it
        for t in reversed(range(T)):
            dh = dh + dy[:, t]
            dc_t = dc + dh * into_cell[t]
            dz[t, :, :3] *= dc_t[:, None]
            dz[t, :, 3] *= dh
            before = dz[t].reshape(B, G) @ transposed
            dh = before if live is None else xp.where(live[t], before, dh)
            dc = dc_t * f[t] if live is None else xp.where(live[t], dc_t * f[t], dc)
        dx, dWx, dWh, db = _products(rows, states, dz.reshape(T, B, G), Wx)
        return dx, dh, dc, dWx, dWh, db

    return (states[1:].swapaxes(0, 1), cells[-1].copy()), back


def _by_time(x: Array, token_mask: Array | None) -> Array:
    """The inputs (B, T, I) of all times as rows (T B, I). Where there is no token it is 0, so that not
    even a NaN there enters a sum."""
    B, T, I = x.shape
    read = x if token_mask is None else zero_where_not(token_mask[..., None], x)
    return read.swapaxes(0, 1).reshape(T * B, I)


def _activate(gates: Array) -> None:
    """The gates (B, 4, N) of one step from their sums, in place: tanh for the third, σ for the others.

    σ is formed for all four: a pass over memory without gaps costs less than one over three quarters of it.
    """
    xp = namespace(gates)
    candidates = xp.tanh(gates[:, 2])
    xp.negative(gates, out=gates)
    with overflow_is_expected():
        xp.exp(gates, out=gates)
    xp.add(gates, 1, out=gates)
    xp.divide(1, gates, out=gates)
    gates[:, 2] = candidates


def _products(rows: Array, states: Array, dz: Array, Wx: Array) -> tuple[Array, Array, Array, Array]:
    """dx, dWx, dWh and db from the inputs of all times (T B, I), the states h_0 ... h_T and dz (T, B, G)."""
    T, B, G = dz.shape
    flat = dz.reshape(T * B, G)
    dx = (flat @ Wx.T).reshape(T, B, len(Wx)).swapaxes(0, 1)
    dWh = states[:-1].reshape(T * B, states.shape[-1]).T @ flat
    return dx, rows.T @ flat, dWh, equal_entries(namespace(dz), T * B, 1, dz.dtype) @ flat
