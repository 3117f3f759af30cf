"""Rotary positions on a part of the head."""

from refllm.spec.array import Array, Pullback, concatenate
from refllm.spec.rotary import rotary_halves, rotary_interleaved


def partial_rotary(x: Array, *, positions: Array, base: float, turned: int, layout: str) -> tuple[Array, Pullback]:
    """ROPE-PART: the first `turned` of D entries are turned as a head of that width would be; the others stay

    The width r = `turned` takes the place of D everywhere: the frequencies are base^(-2i/r), and in the layout "halves"
    the partner of entry i is i + r/2.
    Source:  Black et al. 2022 (arXiv:2204.06745) sec. 2.1 (a quarter of the head, halves); GPT-J (64 of 256 entries,
             interleaved).
    Shapes:  x (..., T, D) -> y (..., T, D)
    Back:    dx = that of the rotation for the entries that are turned, dy for the others

    >>> partial_rotary(array([[1., 0., 5.]]), positions=integers([2]), base=100., turned=2, layout="halves")[0]
    array([[-0.41614684,  0.90929743,  5.        ]])
    """
    rotary = rotary_halves if layout == "halves" else rotary_interleaved
    y, rotary_back = rotary(x[..., :turned], positions=positions, base=base)

    def partial_rotary_back(dy: Array) -> Array:
        return concatenate([rotary_back(dy[..., :turned]), dy[..., turned:]], axis=-1)

    return concatenate([y, x[..., turned:]], axis=-1), partial_rotary_back
