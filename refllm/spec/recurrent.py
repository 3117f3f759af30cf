"""One recurrent layer over a sequence, the step of Elman and the LSTM, and back-propagation through time."""

from refllm.spec.array import Array, Pullback, concatenate, flat, rows, sigmoid, stack, sum, tanh, where, zeros


def rnn(x: Array, h: Array, Wx: Array, Wh: Array, b: Array, *, token_mask: Array | None) -> tuple[Array, Pullback]:
    """RNN: h_t = tanh(x_t Wx + h_{t-1} Wh + b),   y = h_1 ... h_T,   h_0 = h

    Where `token_mask` is false (None: nowhere) there is no token and the state passes unchanged, h_t = h_{t-1}.
    Source:  Elman 1990; Werbos 1990 for back-propagation through time; documents 003 sec. 4.1.
    Shapes:  x (B, T, I); h (B, N); Wx (I, N); Wh (N, N); b (N,); token_mask bool (B, T) -> y (B, T, N)
    Back:    h_t reaches the loss through y_t and through h_{t+1}   hence, from the last step to the first,
             dh_t = dy_t + dz_{t+1} Whᵀ,   dz_t = dh_t (1 - h_t²);   then dx_t = dz_t Wxᵀ,   dWx = Σ x_tᵀ dz_t,
             dWh = Σ h_{t-1}ᵀ dz_t,   db = Σ dz_t. Where there is no token, dz_t = 0 and dh_t passes on.

    >>> x, h = array([[[0.], [5.]]]), array([[1.]])  # the second place has no token: tanh(log 2) = 3/5 stays
    >>> rnn(x, h, array([[1.]]), array([[log(2.)]]), zeros(1), token_mask=array([[True, False]]))[0]
    array([[[0.6],
            [0.6]]])
    """
    T, states = x.shape[1], [h]
    for t in range(T):
        new = tanh(x[:, t] @ Wx + states[t] @ Wh + b)
        states.append(kept(token_mask, t, new, states[t]))

    def rnn_back(dy: Array) -> tuple[Array, ...]:
        dh, dz = zeros(h.shape, h), [h] * T
        for t in reversed(range(T)):
            dh = dy[:, t] + dh
            dz[t] = kept(token_mask, t, dh * (1 - states[t + 1] * states[t + 1]), 0)
            dh = kept(token_mask, t, dz[t] @ Wh.T, dh)
        dx, dWx, dWh, db = _of_the_weights(x, states, dz, Wx)
        return dx, dh, dWx, dWh, db

    return stack(states[1:], axis=1), rnn_back


def lstm(
    x: Array, h: Array, c: Array, Wx: Array, Wh: Array, b: Array, *, token_mask: Array | None
) -> tuple[tuple[Array, Array], Pullback]:
    """LSTM: i, f, g, o = σ, σ, tanh, σ of the quarters of x_t Wx + h_{t-1} Wh + b:   input, forget, cell, output;
    c_t = f c_{t-1} + i g,   h_t = o tanh(c_t),   y = h_1 ... h_T,   h_0 = h,   c_0 = c;   also c_T is returned

    Where `token_mask` is false (None: nowhere) there is no token and both states pass unchanged.
    Source:  Hochreiter & Schmidhuber 1997; Gers et al. 2000 for the forget gate; documents 003 sec. 5.2 (code).
    Shapes:  x (B, T, I); h (B, N); c (B, N); Wx (I, 4*N); Wh (N, 4*N); b (4*N,); token_mask bool (B, T)
             -> y (B, T, N); c_T (B, N)
    Back:    from the last step to the first:   dh_t = dy_t + dz_{t+1} Whᵀ,   do = dh_t tanh(c_t),
             dc_t = f_{t+1} dc_{t+1} + dh_t o (1 - tanh² c_t),   di = dc_t g,   df = dc_t c_{t-1},   dg = dc_t i;
             dz_t = (di i (1 - i), df f (1 - f), dg (1 - g²), do o (1 - o)); the rest as in RNN.

    >>> c, b = array([[log(2.)]]), array([-1000., 1000., 5., 1000.])  # i = 0, f = o = 1: c stays, y = tanh(c)
    >>> lstm(zeros((1, 2, 1)), zeros((1, 1)), c, zeros((1, 4)), zeros((1, 4)), b, token_mask=None)[0]
    (array([[[0.6],
            [0.6]]]), array([[0.69314718]]))
    """
    T, states, cells, gates = x.shape[1], [h], [c], []
    for t in range(T):
        i, f, g, o = gate = _gates(x[:, t] @ Wx + states[t] @ Wh + b)
        new = f * cells[t] + i * g
        cells.append(kept(token_mask, t, new, cells[t]))
        states.append(kept(token_mask, t, o * tanh(new), states[t]))
        gates.append(gate)

    def lstm_back(dy: Array, dc_T: Array) -> tuple[Array, ...]:
        dh, dc, dz = zeros(h.shape, h), dc_T, [h] * T
        for t in reversed(range(T)):
            i, f, g, o = gates[t]
            s = tanh(cells[t + 1])
            dh = dy[:, t] + dh
            dnew = dc + dh * o * (1 - s * s)
            di, df, dg, do = dnew * g, dnew * cells[t], dnew * i, dh * s
            parts = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)]
            dz[t] = kept(token_mask, t, concatenate(parts, axis=-1), 0)
            dh, dc = kept(token_mask, t, dz[t] @ Wh.T, dh), kept(token_mask, t, dnew * f, dc)
        dx, dWx, dWh, db = _of_the_weights(x, states, dz, Wx)
        return dx, dh, dc, dWx, dWh, db

    return (stack(states[1:], axis=1), cells[-1]), lstm_back


def _gates(z: Array) -> tuple[Array, Array, Array, Array]:
    """Input, forget, cell and output from the quarters of z (B, 4 N)."""
    N = z.shape[-1] // 4
    return sigmoid(z[:, :N]), sigmoid(z[:, N : 2 * N]), tanh(z[:, 2 * N : 3 * N]), sigmoid(z[:, 3 * N :])


def kept(token_mask: Array | None, t: int, new: Array, before: Array) -> Array:
    """What is new at step t, and what was before in the texts that have no token there."""
    return new if token_mask is None else where(token_mask[:, t, None], new, before)


def _of_the_weights(x: Array, states: list[Array], dz: list[Array], Wx: Array) -> tuple[Array, Array, Array, Array]:
    """dx, dWx, dWh and db from the gradients dz_t of the sums of every step."""
    if not dz:
        return x, zeros(Wx.shape, Wx), zeros((states[0].shape[-1], Wx.shape[-1]), Wx), zeros(Wx.shape[1:], Wx)
    dx, dWx, db = of_what_enters(x, dz, Wx)
    return dx, dWx, of_products(states[:-1], dz), db


def of_what_enters(x: Array, dz: list[Array], Wx: Array) -> tuple[Array, Array, Array]:
    """dx, dWx and db from the gradients dz_t of x_t Wx + b of every step."""
    sums = stack(dz, axis=1)
    return sums @ Wx.T, flat(x).T @ flat(sums), rows(sums)


def of_products(before: list[Array], dz: list[Array]) -> Array:
    """dW from what was multiplied with W at every step, and the gradients dz_t of the products."""
    return flat(stack(before, axis=1)).T @ flat(stack(dz, axis=1))


def window(x: Array, past: Array, *, places: int, token_mask: Array | None) -> tuple[Array, Pullback]:
    """NNLM: y_t = (x_t, x_{t-1}, ..., x_{t-places+1}) side by side, the newest first

    `past` holds what came before x_1, the newest last. Where `token_mask` is false (None: nowhere) zeros stand for x_t.
    Source:  Bengio et al. 2003 sec. 2, eq. (1): the vector x of the last n-1 = `places` words; documents 001
             ch. 1.
    Shapes:  x (B, T, C); past (B, places-1, C); token_mask bool (B, T) -> y (B, T, places*C)
    Back:    dx_t = Σ_k dy_{t+k}[k],   dy_t[k] being the part of dy_t that stands for x_{t-k}; dpast likewise

    >>> window(array([[[1.], [2.]]]), array([[[8.], [9.]]]), places=3, token_mask=None)[0]
    array([[[1., 9., 8.],
            [2., 1., 9.]]])
    """
    (B, T, C), before = x.shape, past.shape[1]
    seen = concatenate([past, x if token_mask is None else where(token_mask[..., None], x, 0)], axis=1)

    def window_back(dy: Array) -> tuple[Array, Array]:
        shifted = []
        for k in range(places):  # what stands for x_{t-k} goes k places back
            part, late, early = dy[..., k * C : (k + 1) * C], zeros((B, k, C), x), zeros((B, before - k, C), x)
            shifted.append(concatenate([early, part, late], axis=1))
        dseen = sum(stack(shifted, axis=0), axis=0, keepdims=False)
        dx = dseen[:, before:]
        return (dx if token_mask is None else where(token_mask[..., None], dx, 0)), dseen[:, :before]

    return concatenate([seen[:, before - k : before - k + T] for k in range(places)], axis=-1), window_back
