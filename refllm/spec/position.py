"""Where a token stands: the sinusoidal code, and a row of a table added to each token."""

from refllm.spec.array import Array, Pullback, arange, cos, like, power, ratio, scatter_add, sin, spread, stack, sum


def sinusoidal(p: Array, *, width: int) -> tuple[Array, Pullback]:
    """PE-SIN: y(p, 2i) = sin(p / 10000^(2i / C)),   y(p, 2i + 1) = cos(the same),   C = width

    An odd width ends with a sine.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.5; documents 003 sec. 4.1 (erratum E5: not
             sin(p/√d) + cos(p/√d), which is one number for all dimensions).
    Shapes:  p (...) -> y (..., width)
    Back:    dp = Σ_i (dy(2i) cos a_i - dy(2i + 1) sin a_i) / 10000^(2i / C),   a_i = p / 10000^(2i / C)

    >>> sinusoidal(array([0., 1.]), width=2)[0]
    array([[0.        , 1.        ],
           [0.84147098, 0.54030231]])
    """
    wavelengths = power(10000, ratio(arange(0, width, 2), width))
    angles = p[..., None] / wavelengths

    def waves(even: Array, odd: Array) -> Array:
        pairs = stack([even, odd], axis=-1)
        return like(pairs.reshape(*p.shape, 2 * wavelengths.size)[..., :width], p)

    def sinusoidal_back(dy: Array) -> Array:
        slopes = waves(cos(angles) / wavelengths, -sin(angles) / wavelengths)
        return sum(dy * slopes, keepdims=False)

    return waves(sin(angles), cos(angles)), sinusoidal_back


def add_positions(x: Array, P: Array, *, positions: Array) -> tuple[Array, Pullback]:
    """PE-LRN: y = x + P[positions]: row `positions[t]` of the table is added to token t

    The table is learned (BERT, GPT) or holds PE-SIN. It has one row per position (erratum E12: not one per word).
    Source:  Devlin et al. 2019 sec. 3; Radford et al. 2018 sec. 3.1; documents 003 sec. 4.3 (code).
    Shapes:  x (..., C); P (S, C); positions (...) in [0, S) -> y (..., C)
    Back:    dx = dy;   dP[s] = Σ of dy over the tokens at position s

    >>> add_positions(ones((2, 2)), array([[0., 0.], [10., 20.], [30., 40.]]), positions=array([2, 0]))[0]
    array([[31., 41.],
           [ 1.,  1.]])
    """

    def add_positions_back(dy: Array) -> tuple[Array, Array]:
        return dy, scatter_add(spread(positions, dy.shape[:-1]), dy, len(P))

    return x + P[positions], add_positions_back
