"""One step of Muon for one matrix: the momentum, made nearly orthogonal."""

from refllm.spec.array import Array, ratio, sqrt, total

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def muon(
    p: Array, g: Array, v: Array, *, lr: float, momentum: float, nesterov: bool, decay: float
) -> tuple[Array, Array]:
    """MUON: v' = μ v + g,   u = g + μ v' with `nesterov`, else v',   p' = (1 - lr λ) p - lr √max(1, O / I) N(u)

    N is `orthogonalised`: nearly the orthogonal matrix nearest to u. For one matrix of O rows and I columns, in the
    source's orientation: a row of p makes an entry of the output. The text's own weights are (in, out), so pass theirs
    transposed. λ is `decay`.
    Source:  Jordan et al. 2024; Liu et al. 2025 (arXiv:2502.16982) for the decay.
    Shapes:  p (O, I); g (O, I); v (O, I) -> p' (O, I); v' (O, I)

    >>> g, how = array([[100., 0.], [0., 1.]]), {"lr": 1., "momentum": 0., "nesterov": False, "decay": 0.}
    >>> muon(zeros((2, 2)), g, zeros((2, 2)), **how)[0].round(1)  # 100 and 1 go equally far
    array([[-0.7,  0. ],
           [ 0. , -0.7]])
    """
    v = momentum * v + g
    u = g + momentum * v if nesterov else v
    O, I = p.shape
    scale = sqrt(ratio(max(O, I), I))
    return p * (1 - lr * decay) - lr * scale * orthogonalised(u), v


def orthogonalised(u: Array) -> Array:
    """Five Newton-Schulz steps X' = a X + b A X + c A² X,   A = X Xᵀ,   from X = u / (|u| + 1e-7), |u| = √Σ u²

    Each step is a polynomial of every singular value, which moves it towards 1. A is of the shorter side.
    """
    tall = u.shape[0] > u.shape[1]
    X = u / (sqrt(total(u * u)) + 1e-7)
    X = X.T if tall else X
    a, b, c = COEFFICIENTS
    for _ in range(5):
        A = X @ X.T
        X = a * X + (b * A + c * (A @ A)) @ X
    return X.T if tall else X
