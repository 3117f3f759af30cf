"""A sublayer with its residual connection and its norm, in the two orders of the literature."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, TypeAlias

from refllm.backend import Array
from refllm.errors import KindError
from refllm.kinds import OneOf
from refllm.ops.dropout import dropout
from refllm.ops.layer_norm import layer_norm
from refllm.ops.rms_norm import rms_norm
from refllm.parameters import NamedLeaf, Tree, named_gradients, named_leaves

# The pullback of a sublayer gives the gradient of its input, and then those of whatever else it was made of: its
# parameters, and before them what it shares with others, as a bias or a memory. That of a residual gives the gradient
# of its input, that of the norm, and then the same others in the same order.
Sublayer: TypeAlias = Callable[[Array], tuple[Array, Callable[[Array], tuple[Any, ...]]]]
Residual: TypeAlias = tuple[Array, Callable[[Array], tuple[Any, ...]]]


_NORMS = {frozenset(names): names for names in (("g", "b"), ("g",), ("offset",))}  # by the names that p holds


def norm_shapes(width: int) -> Tree:
    return {"g": (width,), "b": (width,)}


def initial_residual(shapes: Tree, generator: Any, *, width: int, layers: int) -> Iterator[NamedLeaf]:
    """Initial float64 host arrays by path: gains 1, biases 0, matrices normal with deviation 0.02 √(768 / C),
    divided by √(2L) where they write into the residual stream.

    At GPT-2's width of 768 the deviation is its 0.02 (Radford et al. 2019 sec. 2.3); with the root the size of what a
    matrix puts out does not shrink with the width.
    """
    normal = 0.02 * math.sqrt(768 / width)
    for path, shape in named_leaves(shapes):
        name = path.rpartition(".")[2]
        deviation = normal / math.sqrt(2 * layers) if name in ("Wo", "W2") else normal
        if name in ("g", "offset") or name.startswith("b"):  # the biases of experts are matrices too
            deviation = 0.0
        yield path, (1.0 if name == "g" else 0.0) + deviation * generator.standard_normal(shape)


def normalise(x: Array, p: Tree, *, eps: float) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """LN where p has a gain g and a shift b, RMS norm where it has a gain alone, with the gain 1 + offset where it has
    an offset, as Gemma does

    Source:  see `layer_norm` and `rms_norm`.
    Shapes:  x (..., C) -> y (..., C)

    >>> normalise(array([1.0, 3.0]), {"g": ones(2), "b": zeros(2)}, eps=1e-15)[0].round(12).tolist()
    [-1.0, 1.0]
    >>> normalise(array([3.0, 3.0]), {"g": ones(2)}, eps=1e-15)[0].round(12).tolist()  # no b: RMS norm
    [1.0, 1.0]
    """
    try:
        names = _NORMS[frozenset(p)]
    except (KeyError, TypeError):
        raise KindError(f"normalise: a norm is a dict with g and b, with g, or with offset; got {_held(p)}") from None
    back: Callable[[Array], tuple[Array, ...]]
    if len(names) == 2:
        y, back = layer_norm(x, p["g"], p["b"], eps=eps)
    else:
        y, back = rms_norm(x, p["g"] if "g" in p else 1 + p["offset"], eps=eps)
    return y, partial(named_gradients, back, names)


def _held(p: Any) -> str:
    return f"one with {', '.join(map(str, p)) or 'nothing'}" if isinstance(p, dict) else type(p).__name__


def _unchanged(dy: Array) -> Array:
    return dy


def maybe_dropout(x: Array, *, dropout_mask: Array | None, rate: float) -> tuple[Array, Callable[[Array], Array]]:
    """DROP where a draw is given; nothing where none is, which is how inference is said.

    >>> maybe_dropout(array([1.0, 2.0]), dropout_mask=None, rate=0.5)[0].tolist()
    [1.0, 2.0]
    """
    if dropout_mask is None:
        return x, _unchanged
    return dropout(x, dropout_mask=dropout_mask, rate=rate)


def pre_norm(x: Array, norm: Tree, f: Sublayer, *, eps: float, dropout_mask: Array | None, rate: float) -> Residual:
    """LN, pre-norm: y = x + drop(f(LN(x))), or with RMS norm for LN, by what `norm` holds

    Source:  Xiong et al. 2020 (arXiv:2002.04745) fig. 1; Radford et al. 2019 sec. 2.3 (GPT-2).
    Shapes:  x (..., C) -> y (..., C)

    >>> f = lambda n: (10 * n, lambda dy: (10 * dy,))
    >>> how = {"eps": 1e-15, "dropout_mask": None, "rate": 0.0}
    >>> pre_norm(array([1.0, 3.0]), {"g": ones(2), "b": zeros(2)}, f, **how)[0].round(12).tolist()  # x + 10 (-1, 1)
    [-9.0, 13.0]
    """
    n, back_norm = normalise(x, norm, eps=eps)
    a, back_f = f(n)
    d, back_drop = maybe_dropout(a, dropout_mask=dropout_mask, rate=rate)

    def back(dy: Array) -> tuple[Any, ...]:
        dn, *others = back_f(back_drop(dy))
        dx, dnorm = back_norm(dn)
        dx += dy  # the residual path
        return dx, dnorm, *others

    return x + d, back


def post_norm(x: Array, norm: Tree, f: Sublayer, *, eps: float, dropout_mask: Array | None, rate: float) -> Residual:
    """LN, post-norm: y = LN(x + drop(f(x)))

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1; documents 002 sec. 3.1 step 4.
    Shapes:  x (..., C) -> y (..., C)

    >>> f = lambda x: (10 * x, lambda dy: (10 * dy,))
    >>> how = {"eps": 1e-15, "dropout_mask": None, "rate": 0.0}
    >>> post_norm(array([1.0, 3.0]), {"g": ones(2), "b": zeros(2)}, f, **how)[0].round(12).tolist()  # the norm of 11 x
    [-1.0, 1.0]
    """
    a, back_f = f(x)
    d, back_drop = maybe_dropout(a, dropout_mask=dropout_mask, rate=rate)
    y, back_norm = normalise(x + d, norm, eps=eps)

    def back(dy: Array) -> tuple[Any, ...]:
        ds, dnorm = back_norm(dy)
        dx, *others = back_f(back_drop(ds))
        dx += ds  # the residual path
        return dx, dnorm, *others

    return y, back


RESIDUALS = {"pre": pre_norm, "post": post_norm}
Placement: TypeAlias = Annotated[str, OneOf(RESIDUALS)]
