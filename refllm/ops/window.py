"""The last places of a sequence side by side, as a feed-forward language model sees them."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array, namespace, zero_where_not
from refllm.differentiable import differentiable


@differentiable
def window(
    x: Array, past: Array, *, places: int, token_mask: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """NNLM: y_t = (x_t, x_{t-1}, ..., x_{t-places+1}) side by side, the newest first

    `past` holds what came before x_1, the newest last: zeros where a text begins. Where `token_mask` is false (None:
    nowhere) there is no token, and zeros stand for x_t.
    Source:  Bengio et al. 2003 sec. 2, eq. (1): the vector x of the last n-1 = `places` words; documents 001
             ch. 1.
    Shapes:  x (B, T, C); past (B, places-1, C); token_mask bool (B, T), or None -> y (B, T, places*C)
    Back:    dx_t = Σ_k dy_{t+k}[k],   dy_t[k] being the part of dy_t that stands for x_{t-k}; dpast likewise
    Raises:  ValueError if places is not positive, past does not have places - 1 rows, or token_mask is not boolean
             (B, T).

    >>> x, past = array([[[1.0], [2.0]]]), array([[[9.0]]])
    >>> window(x, past, places=2, token_mask=None)[0].tolist()  # each with the one before it
    [[[1.0, 9.0], [2.0, 1.0]]]
    """
    T, C = x.shape[1:]
    xp = namespace(x)
    seen = xp.concatenate([past, x if token_mask is None else zero_where_not(token_mask[..., None], x)], axis=1)
    offsets = range(places - 1, -1, -1)  # of x_t, x_{t-1}, ... in `seen`, for t = 1
    y = xp.concatenate([seen[:, i : i + T] for i in offsets], axis=-1)

    def back(dy: Array) -> tuple[Array, Array]:
        dseen = xp.zeros_like(seen)
        for k, i in enumerate(offsets):
            dseen[:, i : i + T] += dy[..., k * C : (k + 1) * C]
        dx = dseen[:, places - 1 :]
        return dx if token_mask is None else zero_where_not(token_mask[..., None], dx), dseen[:, : places - 1].copy()

    return y, back
