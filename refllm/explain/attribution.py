"""How much of a model's answer each token accounts for, from the gradient of the answer by the token's vector."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from refllm.backend import Array, namespace, to_host
from refllm.errors import UserError

# Word vectors (N, T, C) of N texts to the answer for each, (N,), and the pullback.
Answer: TypeAlias = Callable[[Array], tuple[Array, Callable[[Array], Array]]]

POINTS = 8  # of the path in a panel; its two ends go through the model beside them
FIRST = 4  # panels that every path is cut into: the sum of one alone could be right by chance


@dataclass(frozen=True)
class Attribution:
    """What each token accounts for, (T,), and the answer for the text and for the baseline.

    `missing` is the error of completeness, value - baseline_value - Σ scores; `steps` the points of the path at which
    the gradient was taken, 1 where there is no path.
    """

    scores: Array
    value: float
    baseline_value: float
    missing: float
    steps: int


def integrated_gradients(f: Answer, x: Array, baseline: Array, *, tolerance: float, steps: int) -> Attribution:
    """EXPLAIN: scores_t = Σ_c (x - b)_tc ∫_0^1 (∂F/∂x_tc)(b + a (x - b)) da,   so that Σ_t scores_t = F(x) - F(b)

    The path is cut into panels, each integrated at 8 points by Gauss and Legendre. Completeness holds on every panel,
    so that F at its ends tells its error: the worst panel is halved until the errors, each without its sign, add up to
    at most `tolerance` |F(x) - F(b)|, or `steps` points are used. A trained model answers in a narrow part of the path,
    which a sum at fixed distances, as in the source, steps over.
    Source:  Sundararajan, Taly & Yan 2017 (arXiv:1703.01365) sec. 3, its prop. 1 (completeness) and sec. 5; documents
             000 sec. 9 Q5.
    Shapes:  x (T, C); baseline (T, C); f (N, T, C) -> (N,)
    Special: a token that is its own baseline gets exactly 0.
    Raises:  UserError for fewer steps than the first panels take, and for a tolerance that is not positive.

    >>> f = lambda x: ((x**2).sum(axis=(1, 2)), lambda dy: 2 * x * dy[:, None, None])  # F = Σ x²
    >>> found = integrated_gradients(f, array([[3.0], [4.0]]), zeros((2, 1)), tolerance=1e-6, steps=100)
    >>> found.scores.round(9).tolist()  # 9 and 16: together F(x) - F(0) = 25
    [9.0, 16.0]
    """
    if steps < FIRST * POINTS or not tolerance > 0:
        raise UserError(
            f"a path takes at least {FIRST * POINTS} steps and a tolerance above 0, got {steps} and {tolerance:g}; "
            "give more"
        )
    panels = [_panel(f, x, baseline, i / FIRST, (i + 1) / FIRST) for i in range(FIRST)]
    value, baseline_value = panels[-1].after, panels[0].before
    heapq.heapify(panels)
    while POINTS * (len(panels) + 1) <= steps:
        if sum(abs(panel.missing) for panel in panels) <= tolerance * abs(value - baseline_value):
            break
        worst = heapq.heappop(panels)
        middle = (worst.start + worst.end) / 2
        for start, end in ((worst.start, middle), (middle, worst.end)):
            heapq.heappush(panels, _panel(f, x, baseline, start, end))
    scores = namespace(x).stack([panel.scores for panel in panels]).sum(axis=0)
    missing = value - baseline_value - float(to_host(scores.sum()))
    return Attribution(scores, value, baseline_value, missing, POINTS * len(panels))


@dataclass(frozen=True)
class _Panel:
    """A part of the path; the one with the greatest error comes first."""

    start: float
    end: float
    before: float  # the answer at the start
    after: float
    scores: Array
    missing: float

    def __lt__(self, other: _Panel) -> bool:
        return abs(self.missing) > abs(other.missing)


def _panel(f: Answer, x: Array, baseline: Array, start: float, end: float) -> _Panel:
    xp, way = namespace(x), x - baseline
    nodes, weights = gauss_legendre(POINTS)
    places = [start, *(start + (end - start) * node for node in nodes), end]
    y, back = f(xp.stack([baseline + place * way for place in places]))
    dy = xp.zeros_like(y)
    for i, weight in enumerate(weights, start=1):
        dy[i] = (end - start) * weight
    scores = (way * back(dy).sum(axis=0)).sum(axis=-1)
    before, *_, after = to_host(y).tolist()
    return _Panel(start, end, before, after, scores, after - before - float(to_host(scores.sum())))


def gradient_times_input(f: Answer, x: Array, baseline: Array) -> Attribution:
    """EXPLAIN: scores_t = Σ_c (x - b)_tc (∂F/∂x_tc)(x), the first-order change of F on the way from b to x

    With b = 0 the product of gradient and input. Complete for a linear F alone: `missing` says what the slope at x does
    not tell, which for a sure answer is nearly everything, since there F is flat.
    Source:  Sundararajan, Taly & Yan 2017 sec. 1, 2.1 (what is wrong with it); documents 000 sec. 9 Q5.
    Shapes:  x (T, C); baseline (T, C); f (N, T, C) -> (N,)

    >>> f = lambda x: ((x**2).sum(axis=(1, 2)), lambda dy: 2 * x * dy[:, None, None])  # F = Σ x²
    >>> found = gradient_times_input(f, array([[3.0], [4.0]]), zeros((2, 1)))
    >>> found.scores.tolist(), float(found.missing)  # twice too much: the slope at x is not that of the way
    ([18.0, 32.0], -25.0)
    """
    xp = namespace(x)
    y, back = f(xp.stack([x, baseline]))
    gradient = back(xp.ones_like(y))[0]
    scores = ((x - baseline) * gradient).sum(axis=-1)
    value, baseline_value = to_host(y).tolist()
    return Attribution(scores, value, baseline_value, value - baseline_value - float(to_host(scores.sum())), 1)


def gauss_legendre(n: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on [0, 1] with Σ w_i g(a_i) = ∫ g for every polynomial g of degree 2 n - 1

    The nodes are the zeros of the Legendre polynomial, by Newton's method from their asymptotic places.
    Source:  Abramowitz & Stegun 1964, 25.4.29 and 22.16.6.

    >>> nodes, weights = gauss_legendre(2)
    >>> [round(sum(w * a**k for a, w in zip(nodes, weights)) * (k + 1), 12) for k in range(4)]  # exact up to a³
    [1.0, 1.0, 1.0, 1.0]
    """
    nodes, weights = [], []
    for i in range(n):
        z = -math.cos(math.pi * (i + 0.75) / (n + 0.5))
        for _ in range(6):  # the error squares each time: 1e-3 at first for any n
            z -= _legendre(n, z)[0] / _legendre(n, z)[1]
        slope = _legendre(n, z)[1]
        nodes.append((1 + z) / 2)
        weights.append(1 / ((1 - z * z) * slope * slope))
    return nodes, weights


def _legendre(n: int, z: float) -> tuple[float, float]:
    """P_n(z) and P_n'(z): (k + 1) P_{k+1} = (2k + 1) z P_k - k P_{k-1},   (z² - 1) P_n' = n (z P_n - P_{n-1})"""
    before, now = 1.0, z
    for k in range(1, n):
        before, now = now, ((2 * k + 1) * z * now - k * before) / (k + 1)
    return now, n * (z * now - before) / (z * z - 1)
