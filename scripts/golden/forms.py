"""Customary forms of a formula: the same number, formed in other steps, and so rounded otherwise.

Where a formula has several, none is more right than another. The truth of a case takes each reading in turn: in
reading 0 the text is as it stands, in reading n every formula has its n-th other form, or its last. All must give the
same value to every digit; how near an answer must be is decided by the form that errs most.

A form that rounds less than the text, as x / root for x (1 / root), needs no reading. One that loses digits which
another keeps is not customary but wrong: 1 + erf(x) far on the left, log(softmax(x)), E[x^2] - E[x]^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FunctionType

from golden.changes import Change, compatible

Form = tuple[Change, ...]

_SHIFTED = {"e = exp(x - top(x))": "m = top(x)\ne = exp(x - m)"}
_BY_L = {"p = e / (Z + is_zero(Z))": "p = exp(x - (m + log(where(Z == 0, 1, Z))))"}
_WEIGHTS = "P, softmax_back = softmax(s)"
_EXPONENTIALS = "m = top(s)\ne = exp(s - m)\nZ = where(sum(e) == 0, 1, sum(e))"
_AGAIN = "P = exp(s - L)\ndv = swap(P) @ dy"
_TO_DS = {  # the line that makes the gradient of the scores
    "attention.attention": "ds = softmax_back(dP)",
    "attention.biased_attention": "ds = softmax_back(dP)",
    "soft_cap.capped_attention": "ds = softmax_back(dP)",
    "log_sum_exp.attention_with_lse": "ds = softmax_back(dP) + log_sum_exp_back(dl)",
}
_CE_BACK = "return where(counted[..., None], {0} * w - where(one_hot(index, logits.shape[-1]), w, 0), 0)"
_SMOOTHED_BACK = "return where(counted[..., None], w * {0} - t, 0)"
_COSINE_END = "return min_lr + (max_lr - min_lr) * (1 + cos(pi() * ratio(step - warmup, total - warmup))) / 2"


def _attention(name: str, weights: str, y: str, further: Mapping[str, str]) -> Change:
    """The steps from the scores to y, and the gradient of the scores by Σ y dy."""
    to_ds = _TO_DS[name]
    lines = {_WEIGHTS: f"{_EXPONENTIALS}\n{weights}", "y = P @ v": f"y = {y}", **further}
    return Change(name, {**lines, to_ds: to_ds.replace("softmax_back(dP)", "P * (dP - sum(dy * y))")})


FORMS: dict[str, tuple[Form, ...]] = {
    # e / Z · exp(x - logsumexp(x)) · the same, formed again for the gradient
    "softmax": (
        (Change("softmax.softmax", {**_SHIFTED, **_BY_L}),),
        (
            Change(
                "softmax.softmax",
                {
                    **_SHIFTED,
                    **_BY_L,
                    "return p * (dp - sum(p * dp))": (
                        "p = exp(x - (m + log(where(Z == 0, 1, Z))))\nreturn p * (dp - sum(p * dp))"
                    ),
                },
            ),
        ),
    ),
    # x - max - log Z · x - logsumexp(x) · the first, with the gradient by e / Z instead of e^y
    "log_softmax": (
        (
            Change(
                "softmax.log_softmax",
                {
                    "c = x - top(x)": "m = top(x)\nc = x - m",
                    "y = c - log(where(Z == 0, 1, Z))": "y = x - (m + log(where(Z == 0, 1, Z)))",
                },
            ),
        ),
        (
            Change(
                "softmax.log_softmax",
                {"return dy - exp(y) * sum(dy)": "return dy - exp(c) / where(Z == 0, 1, Z) * sum(dy)"},
            ),
            Change(
                "cross_entropy.cross_entropy",
                {_CE_BACK.format("exp(log_p)"): _CE_BACK.format("softmax(logits)[0]")},
            ),
            Change(
                "cross_entropy.smoothed_cross_entropy",
                {_SMOOTHED_BACK.format("exp(log_p)"): _SMOOTHED_BACK.format("softmax(logits)[0]")},
            ),
        ),
    ),
    # P v with P = e / Z, and Σ P dP over the keys for the gradient · e v / Z, and Σ y dy · P v with
    # P = exp(s - logsumexp(s)), formed again for the gradient, and Σ y dy (Dao 2022, algorithm 4)
    "attention": (
        tuple(_attention(name, "P = e / Z", "e @ v / Z", {}) for name in _TO_DS),
        tuple(
            _attention(name, "L = m + log(Z)\nP = exp(s - L)", "P @ v", {"dv = swap(P) @ dy": _AGAIN})
            for name in _TO_DS
        ),
    ),
    # (a / |a|) · (b / |b|) · a · b / (|a| |b|)
    "cosine": (
        (
            Change(
                "contrastive.info_nce",
                {
                    "(n, n_back), (m, m_back) = direction(a), direction(b)": (
                        "squares_a, squares_b = sum(a * a), sum(b * b)\n"
                        "size_a, size_b = (sqrt(z + is_zero(z)) for z in (squares_a, squares_b))\n"
                        "sizes = size_a * swap(size_b)"
                    ),
                    "s = n @ swap(m) / temperature": "cosines = a @ swap(b) / sizes\ns = cosines / temperature",
                    "return n_back(ds @ m), m_back(swap(ds) @ n)": (
                        "da = (ds / sizes) @ b - sum(ds * cosines) * a / (size_a * size_a)\n"
                        "db = swap(ds / sizes) @ a - sum(swap(ds * cosines)) * b / (size_b * size_b)\n"
                        "return where(squares_a == 0, 0, da), where(squares_b == 0, 0, db)"
                    ),
                },
            ),
        ),
    ),
    # x erfc(-x / √2) / 2 · x (1 + erf(x / √2)) / 2, inside a block alone: by itself it is wrong far on the left
    "gelu": (
        (
            Change(
                "activation.gelu_erf",
                {"Phi = erfc(-x / sqrt(2)) / 2": "Phi = (1 + erf(x / sqrt(2))) / 2"},
            ),
        ),
    ),
    # the printed lines · m + (1 - β1) (g - m), and the corrections folded into the rate and eps (Kingma 2015, 2)
    "adam": (
        (
            Change(
                "update._adam",
                {
                    "m = beta1 * m + (1 - beta1) * g": "m = m + (1 - beta1) * (g - m)",
                    "corrected_m = m / (1 - power(beta1, step))": "first = 1 - power(beta1, step)",
                    "corrected_v = v / (1 - power(beta2, step))": "root = sqrt(1 - power(beta2, step))",
                    "return corrected_m / (sqrt(corrected_v) + eps), m, v": (
                        "return root / first * m / (sqrt(v) + eps * root), m, v"
                    ),
                },
            ),
        ),
    ),
    # the k largest of the softmax, by their sum · the softmax of the k largest
    "top_experts": (
        (
            Change(
                "top_experts.top_experts",
                {
                    "P, softmax_back = softmax(scores)": (
                        "chosen = among_largest(scores, k)\n"
                        'P, softmax_back = softmax(where(chosen, scores, float("-inf")) if renormalise else scores)'
                    ),
                    "y = K / s if renormalise else K": "y = K",
                    "dK = (dy - sum(dy * y)) / s if renormalise else dy": "dK = dy",
                },
            ),
        ),
    ),
    # the floor where the cosine ends · the cosine at its end, 1 + cos π, which may leave its rounding
    "schedule": (
        (
            Change(
                "update.warmup_cosine",
                {
                    "if step >= total:": "if total == warmup:",
                    _COSINE_END: (
                        "done = ratio(min(step, total) - warmup, total - warmup)\n"
                        "return min_lr + (max_lr - min_lr) * (1 + cos(pi() * done)) / 2"
                    ),
                },
            ),
        ),
    ),
}
ALONE = {"gelu": "gelu_erf"}  # the operation by itself, for which the other forms are wrong


def of(called: Sequence[FunctionType], operation: str) -> dict[str, tuple[Form, ...]]:
    """The formulas among these functions that have several forms."""
    return {
        formula: own
        for formula, own in FORMS.items()
        if ALONE.get(formula) != operation and any(c.original in called for form in own for c in form)
    }


def readings(own: dict[str, tuple[Form, ...]]) -> int:
    """How many readings differ; at least two, so that two precisions are compared."""
    return max([2, *(1 + len(others) for others in own.values())])


def reading(number: int, own: dict[str, tuple[Form, ...]], before: Sequence[Change]) -> list[Change]:
    """The changes of this reading to text that was changed before. Where that was a line that a form exchanges, the
    formula is another one and has no such form."""
    if number == 0:
        return []
    chosen = [others[min(number, len(others)) - 1] for others in own.values()]
    return [change for form in chosen if compatible(before, form) for change in form]
