"""A row of a table for every token."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array, namespace, scatter_add
from refllm.differentiable import differentiable
from refllm.fit import require_indices


@differentiable
def embedding(E: Array, *, ids: Array) -> tuple[Array, Callable[[Array], Array]]:
    """EMB: y = onehot(ids) E, that is, row `ids[...]` of E

    Source:  Bengio et al. 2003 sec. 2; documents 003 sec. 4.1, 002 sec. 3.1 (erratum E7: the product is with the
             one-hot vector of the word, not with its index).
    Shapes:  E (V, C); ids (...) in [0, V) -> y (..., C)
    Back:    dE[v] = Σ of dy over the places where ids = v; a row that was not used gets zero.
    Raises:  IndexError if an id is not in [0, V). (Not checked on a device, where reading ids would wait for it.)

    >>> y, back = embedding(array([[1.0, 2.0], [3.0, 4.0]]), ids=array([1, 1, 0]))
    >>> y.tolist(), back(ones((3, 2))).tolist()  # row 1 is used twice
    ([[3.0, 4.0], [3.0, 4.0], [1.0, 2.0]], [[1.0, 1.0], [2.0, 2.0]])
    """
    require_indices("embedding", ids=(ids, len(E)))

    def back(dy: Array) -> Array:
        dE = namespace(E).zeros_like(E)
        scatter_add(dE, ids.reshape(-1), dy.reshape(ids.size, E.shape[1]))
        return dE

    return E[ids], back
