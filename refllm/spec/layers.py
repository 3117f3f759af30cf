"""What the layers of all Transformers have in common: a norm, the residual around a sublayer, stacked layers."""

from collections.abc import Callable

from refllm.spec.array import Array, Pullback, Tree, part, tap
from refllm.spec.layer_norm import layer_norm, rms_norm


def normalised(x: Array, p: Tree, *, eps: float) -> tuple[Array, Pullback]:
    """LN: layer norm, or RMS norm where p has no b

    Source:  as `layer_norm` and `rms_norm`.
    Shapes:  x (..., C); g (C,); b (C,) -> y (..., C)
    """
    if "b" not in p:
        y, rms_norm_back = rms_norm(x, p["g"], eps=eps)

        def rms_back(dy: Array) -> tuple[Array, Tree]:
            dx, dg = rms_norm_back(dy)
            return dx, {"g": dg}

        return y, rms_back

    y, layer_norm_back = layer_norm(x, p["g"], p["b"], eps=eps)

    def normalised_back(dy: Array) -> tuple[Array, Tree]:
        dx, dg, db = layer_norm_back(dy)
        return dx, {"g": dg, "b": db}

    return y, normalised_back


def maybe_normalised(x: Array, p: Tree, name: str, *, eps: float) -> tuple[Array, Pullback]:
    """LN: the norm of that name where p has one; gives dx and its gradients by name

    Source:  as `normalised`.
    Shapes:  x (..., C) -> y (..., C)
    """
    if name not in p:

        def unchanged_back(dy: Array) -> tuple[Array, Tree]:
            return dy, {}

        return x, unchanged_back

    y, norm_back = normalised(x, p[name], eps=eps)

    def maybe_normalised_back(dy: Array) -> tuple[Array, Tree]:
        dx, dnorm = norm_back(dy)
        return dx, {name: dnorm}

    return y, maybe_normalised_back


Sublayer = Callable[[Array, Tree], tuple[Array, Pullback]]


def residual(
    x: Array, p: Tree, number: int, name: str, f: Sublayer, *, norm: str, eps: float
) -> tuple[Array, Pullback]:
    """LN: `pre_norm` or `post_norm`

    p is the layer's tree: the norm has p["norm" + number], and f is a function of an array and p[name].
    Source:  as these.
    Shapes:  x (..., C) -> y (..., C)
    Back:    gives dx, the gradients of the norm and of f by name, and whatever f's pullback gives beside these
    """
    return {"pre": pre_norm, "post": post_norm}[norm](x, p, f"norm{number}", f"residual{number}", name, f, eps=eps)


def pre_norm(x: Array, p: Tree, norm: str, whole: str, name: str, f: Sublayer, *, eps: float) -> tuple[Array, Pullback]:
    """LN: y = x + f(N(x))

    Source:  Xiong et al. 2020 (arXiv:2002.04745) sec. 3; Radford et al. 2019 sec. 2.3.
    Shapes:  x (..., C) -> y (..., C)
    Back:    x is used twice, so dx is the sum of dy, past the sublayer, and of what comes back through it
    """
    n, norm_back = normalised(x, p[norm], eps=eps)
    a, f_back = f(tap(norm, n), p[name])
    y = x + tap(name, a)

    def pre_norm_back(dy: Array) -> tuple[Array, ...]:
        dn, df, *others = f_back(dy)
        dx, dnorm = norm_back(dn)
        return dy + dx, {norm: dnorm, name: df}, *others

    return tap(whole, y), pre_norm_back


def post_norm(
    x: Array, p: Tree, norm: str, whole: str, name: str, f: Sublayer, *, eps: float
) -> tuple[Array, Pullback]:
    """LN: y = N(x + f(x))

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1.
    Shapes:  x (..., C) -> y (..., C)
    Back:    x is used twice, so dx is the sum of the gradient past f and of what comes back through it
    """
    a, f_back = f(x, p[name])
    h = tap(whole, x + tap(name, a))
    y, norm_back = normalised(h, p[norm], eps=eps)

    def post_norm_back(dy: Array) -> tuple[Array, ...]:
        dh, dnorm = norm_back(dy)
        dx, df, *others = f_back(dh)
        return dh + dx, {norm: dnorm, name: df}, *others

    return tap(norm, y), post_norm_back


def through(x: Array, layers: list[Tree], f: Callable[..., tuple[Array, Pullback]]) -> tuple[Array, Pullback]:
    """MHA, FFN: y = layer_L( ... layer_1(x)),   layer_n(x) = f(x, layers[n])

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1.
    Shapes:  x (..., C) -> y (..., C)
    Back:    from the last layer to the first. Gives dx, the list of the layers' gradients, and of whatever the layers
             share (the memory of the encoder, a bias by distance) the sum of their gradients.
    """
    backs = []
    for n, layer in enumerate(layers):
        with part(f"layers.{n}"):
            x, layer_back = f(x, layer)
        backs.append(layer_back)

    def through_back(dy: Array) -> tuple[Array, ...]:
        dlayers, dshared = [], []
        for layer_back in reversed(backs):
            dy, dlayer, *others = layer_back(dy)
            dlayers.append(dlayer)
            dshared.append(others)
        return dy, dlayers[::-1], *(added(gradients) for gradients in zip(*dshared, strict=True))

    return x, through_back


def added(gradients: Tree) -> Array:
    """The sum of several gradients of the same array."""
    first, *others = gradients
    for other in others:
        first = first + other
    return first


def with_head(dp: Tree, dW: Array, *, tied: bool) -> Tree:
    """LMHEAD: the gradients dp, and dW of the output layer: if it is tied, W = tokenᵀ, the table is used twice, and its
    gradient is the sum of both."""
    return {**dp, "token": dp["token"] + dW.T} if tied else {**dp, "head": dW}
