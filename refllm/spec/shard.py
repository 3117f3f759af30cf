"""Which places of an axis a rank has, and a part put back among zeros."""

from refllm.spec.array import Array, concatenate, zeros


def shard(size: int, *, ranks: int, rank: int) -> slice:
    """The places of an axis of this size that a rank has: as many consecutive ones each, and fewer for the last ranks

    >>> [shard(7, ranks=3, rank=n) for n in range(3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 7, None)]
    """
    longest = -(-size // ranks)
    return slice(min(size, longest * rank), min(size, longest * (rank + 1)))


def among_zeros(x: Array, own: slice, size: int, *, axis: int) -> Array:
    """x at its own places of an axis of this size, and zeros at the others

    >>> among_zeros(array([[5., 6.]]), slice(1, 3), 4, axis=-1)
    array([[0., 5., 6., 0.]])
    """
    before, after = list(x.shape), list(x.shape)
    before[axis], after[axis] = own.start, size - own.stop
    return concatenate([zeros(before, x), x, zeros(after, x)], axis=axis)
