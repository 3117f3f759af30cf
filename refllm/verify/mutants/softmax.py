"""Mistakes of softmax and of the mean squared error."""

from __future__ import annotations

from refllm.spec.softmax import log_softmax, softmax
from refllm.spec.squared_error import mean_squared_error
from refllm.verify.mutants.bank import Edited, edit

E, P = "e = exp(x - top(x))", "p = e / (Z + is_zero(Z))"
SLOPE = "return p * (dp - sum(p * dp))"
C, Y = "c = x - top(x)", "y = c - log(where(Z == 0, 1, Z))"
LOG_SLOPE = "return dy - exp(y) * sum(dy)"
MEAN = "return total((x - t) * (x - t)) / x.size, mean_squared_error_back"
DX = "dx = 2 * (x - t) * dy / x.size"

G = "https://github.com/"
# fmt: off
MUTANTS = [
    Edited("SMX/wrong-axis", "softmax over the axis before the last",
           edit(softmax, E, "return columns(softmax)(x)")),
    Edited("SMX/first-axis", "softmax over the first axis",
           edit(softmax, E, "x = x.swapaxes(0, -1)\n" + E,
                "return p, softmax_back", "return p.swapaxes(0, -1), softmax_back")),
    Edited("SMX/all-at-once", "softmax over all entries at once",
           edit(softmax, E, "e = exp(x - highest(x))", "Z = sum(e)", "Z = total(e)")),
    Edited("SMX/no-shift", "softmax without the shift by the row maximum: exp overflows",
           edit(softmax, E, "e = exp(x)", P, "p = e / Z"), G + "deeplearning4j/deeplearning4j/issues/6039"),
    Edited("SMX/shift-not-negative", "softmax shifted by the row maximum only if that is above 0",
           edit(softmax, E, "e = exp(x - where(top(x) > 0, top(x), 0))", P, "p = e / Z"),
           G + "FluxML/NNlib.jl/pull/43"),
    Edited("SMX/shift-global", "softmax shifted by the largest of all entries, not of the row",
           edit(softmax, E, "e = exp(x - highest(x))", P, "p = e / Z"), G + "keras-team/keras/issues/9606"),
    Edited("SMX/nan-if-nothing", "softmax whose row of only -infinity is NaN", edit(softmax, P, "p = e / Z")),
    Edited("SMX/base-two", "softmax with powers of 2 instead of e", edit(softmax, E, "e = power(2, x - top(x))")),
    Edited("SMX/eps-in-sum", "softmax with 1e-6 added to the sum", edit(softmax, P, "p = e / (Z + 1e-6)")),
    Edited("SMX/back-diagonal", "softmax whose gradient is y (1 - y) dy, the diagonal alone",
           edit(softmax, SLOPE, "return p * (1 - p) * dp"), G + "deeplearning4j/libnd4j/issues/440"),
    Edited("SMX/back-first-term", "softmax whose gradient is y dy, without - y Σ y dy",
           edit(softmax, SLOPE, "return p * dp"), G + "HomericIntelligence/Odyssey/issues/2134"),
    Edited("SMX/back-sum-of-dy", "softmax whose gradient is y (dy - Σ dy)",
           edit(softmax, SLOPE, "return p * (dp - sum(dp))")),
    Edited("SMX/log-wrong-axis", "log-softmax over the axis before the last",
           edit(log_softmax, C, "return columns(log_softmax)(x)")),
    Edited("SMX/log-of-softmax", "log(softmax(x)): small probabilities are lost",
           edit(log_softmax, Y, "y = log(softmax(x)[0])")),
    Edited("SMX/log-with-eps", "log(softmax(x) + 1e-9)", edit(log_softmax, Y, "y = log(softmax(x)[0] + 1e-9)")),
    Edited("SMX/log-shift-global", "log-softmax shifted by the largest of all entries, not of the row",
           edit(log_softmax, C, "c = x - highest(x)", Y, "y = c - log(Z)"), G + "keras-team/keras/issues/9606"),
    Edited("SMX/log-base-two", "log-softmax with the logarithm to base 2",
           edit(log_softmax, Y, "y = (c - log(where(Z == 0, 1, Z))) / log(2)")),
    Edited("SMX/log-back-of-one", "log-softmax whose gradient is dy - softmax(x), without Σ dy",
           edit(log_softmax, LOG_SLOPE, "return dy - exp(y)")),
    Edited("SMX/log-back-mean", "log-softmax whose gradient subtracts the mean of dy instead of softmax Σ dy",
           edit(log_softmax, LOG_SLOPE, "return dy - mean(dy)")),
    Edited("MSE/sum", "the squared error summed instead of averaged",
           edit(mean_squared_error, MEAN, "return total((x - t) * (x - t)), mean_squared_error_back")),
    Edited("MSE/half", "half the mean squared error",
           edit(mean_squared_error, MEAN, "return total((x - t) * (x - t)) / x.size / 2, mean_squared_error_back")),
    Edited("MSE/over-rows", "the squared error averaged over the first axis, summed over the rest",
           edit(mean_squared_error, MEAN, "return total((x - t) * (x - t)) / len(x), mean_squared_error_back")),
    Edited("MSE/root", "the root of the mean squared error",
           edit(mean_squared_error, MEAN, "return sqrt(total((x - t) * (x - t)) / x.size), mean_squared_error_back")),
    Edited("MSE/absolute", "the mean absolute error",
           edit(mean_squared_error, MEAN,
                "return total(where(x > t, x - t, t - x)) / x.size, mean_squared_error_back")),
    Edited("MSE/back-no-two", "the mean squared error with a gradient without the factor 2",
           edit(mean_squared_error, DX, "dx = (x - t) * dy / x.size")),
    Edited("MSE/back-not-averaged", "the mean squared error with a gradient not divided by N",
           edit(mean_squared_error, DX, "dx = 2 * (x - t) * dy")),
    Edited("MSE/back-targets-sign", "the mean squared error with the gradient of t not negative",
           edit(mean_squared_error, "return dx, -dx", "return dx, dx")),
]
