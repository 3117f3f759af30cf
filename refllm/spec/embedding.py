"""A row of a table for every token."""

from refllm.spec.array import Array, Pullback, scatter_add


def embedding(E: Array, *, ids: Array) -> tuple[Array, Pullback]:
    """EMB: y = onehot(ids) E, that is, row `ids[...]` of E

    Source:  Bengio et al. 2003 sec. 2; documents 003 sec. 4.1, 002 sec. 3.1 (erratum E7: the product is with the
             one-hot vector of the word, not with its index).
    Shapes:  E (V, C); ids (...) in [0, V) -> y (..., C)
    Back:    dE = onehot(ids)ᵀ dy: row v is the sum of dy over the places where ids = v

    >>> embedding(array([[1., 2.], [3., 4.]]), ids=array([1, 1, 0]))[0]
    array([[3., 4.],
           [3., 4.],
           [1., 2.]])
    """

    def embedding_back(dy: Array) -> Array:
        return scatter_add(ids, dy, len(E))

    return E[ids], embedding_back
