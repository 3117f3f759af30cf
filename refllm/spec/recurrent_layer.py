"""Recurrent layers: one that starts from zeros, one in both directions, and several stacked."""

from refllm.spec.array import Array, Pullback, Tree, concatenate, tap, zeros
from refllm.spec.recurrent import lstm, rnn


def recurrent_layer(x: Array, p: Tree, *, cell: str, token_mask: Array | None) -> tuple[Array, Pullback]:
    """RNN, LSTM: the states of a layer that begins with zeros

    Source:  as `rnn` and `lstm`.
    Shapes:  x (B, T, I); Wx (I, G); Wh (N, G); b (G,); token_mask bool (B, T) -> y (B, T, N)
    """
    h = zeros((x.shape[0], p["Wh"].shape[0]), x)
    if cell == "rnn":
        y, rnn_back = rnn(x, h, p["Wx"], p["Wh"], p["b"], token_mask=token_mask)

        def rnn_layer_back(dy: Array) -> tuple[Array, Tree]:
            dx, _, dWx, dWh, db = rnn_back(dy)
            return dx, {"Wx": dWx, "Wh": dWh, "b": db}

        return y, rnn_layer_back

    (y, _), lstm_back = lstm(x, h, h, p["Wx"], p["Wh"], p["b"], token_mask=token_mask)

    def lstm_layer_back(dy: Array) -> tuple[Array, Tree]:
        dx, _, _, dWx, dWh, db = lstm_back(dy, h)  # nothing comes back through the last cell
        return dx, {"Wx": dWx, "Wh": dWh, "b": db}

    return y, lstm_layer_back


def bidirectional(x: Array, p: Tree, *, cell: str, token_mask: Array | None) -> tuple[Array, Pullback]:
    """BIRNN: at every place the state of a layer that reads from the first word on, and beside it the state of another
    layer that reads from the last word back

    Source:  Schuster & Paliwal 1997; documents 003 sec. 4.1.
    Shapes:  x (B, T, I); token_mask bool (B, T) -> y (B, T, N+N)
    Back:    x is used twice, so dx is the sum of what comes back from both

    >>> p = {"Wx": ones((1, 1)), "Wh": array([[log(2.) / 0.6]]), "b": zeros(1)}  # tanh(log 2) = 0.6 is handed on as 0.6
    >>> bidirectional(array([[[log(2.)], [0.]]]), {"forward": p, "backward": p}, cell="rnn", token_mask=None)[0]
    array([[[0.6, 0.6],
            [0.6, 0. ]]])
    """
    turned = None if token_mask is None else token_mask[:, ::-1]
    ahead, forward_back = recurrent_layer(x, p["forward"], cell=cell, token_mask=token_mask)
    behind, backward_back = recurrent_layer(x[:, ::-1], p["backward"], cell=cell, token_mask=turned)
    N = ahead.shape[-1]

    def bidirectional_back(dy: Array) -> tuple[Array, Tree]:
        dx_ahead, dforward = forward_back(dy[..., :N])
        dx_behind, dbackward = backward_back(dy[:, ::-1, N:])
        return dx_ahead + dx_behind[:, ::-1], {"forward": dforward, "backward": dbackward}

    return concatenate([ahead, behind[:, ::-1]], axis=-1), bidirectional_back


def recurrent_layers(x: Array, layers: list[Tree], *, cell: str, token_mask: Array | None) -> tuple[Array, Pullback]:
    """RNN-LM, LSTM-LM, HYBRID: each layer over the states of the one below

    Source:  Mikolov et al. 2010; Sundermeyer et al. 2012; documents 003 sec. 4.3.
    Shapes:  x (B, T, I); token_mask bool (B, T) -> y (B, T, N)
    """
    backs = []
    for n, p in enumerate(layers):
        run = bidirectional if "backward" in p else recurrent_layer
        x, layer_back = run(x, p, cell=cell, token_mask=token_mask)
        x = tap(f"layers.{n}", x)
        backs.append(layer_back)

    def recurrent_layers_back(dy: Array) -> tuple[Array, list[Tree]]:
        dlayers = []
        for layer_back in reversed(backs):
            dy, dlayer = layer_back(dy)
            dlayers.append(dlayer)
        return dy, dlayers[::-1]

    return x, recurrent_layers_back
