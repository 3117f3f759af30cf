"""scikit-learn as an implementation: the functions and optimisers of its multi-layer perceptron, and its metrics.

refllm verify scripts/adapters/sklearn_adapter.py --dtype float32
"""

import numpy
from sklearn import metrics
from sklearn.neural_network import _base, _stochastic_optimizers
from sklearn.utils import extmath


def softmax(x):
    return extmath.softmax(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def activation(name):
    def operation(x):
        y = x.copy()
        _base.ACTIVATIONS[name](y)

        def back(dy):
            dx = dy.copy()
            _base.DERIVATIVES[name](y, dx)
            return dx

        return y, back

    return operation


relu, tanh = activation("relu"), activation("tanh")


def cross_entropy(logits, *, targets, ignore, reduction):
    if ignore is not None or reduction == "none":
        raise NotImplementedError("log_loss is a mean or a sum over all places")
    rows = softmax(logits).reshape(-1, logits.shape[-1])
    classes = numpy.arange(logits.shape[-1])
    loss = metrics.log_loss(targets.reshape(-1), rows, labels=classes, normalize=reduction == "mean")
    return numpy.asarray(loss, logits.dtype)


def mean_squared_error(x, t):
    return numpy.asarray(metrics.mean_squared_error(t.reshape(-1), x.reshape(-1)), x.dtype)


def adam(p, g, m, v, *, step, lr, beta1, beta2, eps, decay):
    if decay:
        raise NotImplementedError("its Adam has no decay")
    p = p.copy()
    optimiser = _stochastic_optimizers.AdamOptimizer([p], lr, beta1, beta2, eps)
    optimiser.t, optimiser.ms, optimiser.vs = step - 1, [m.copy()], [v.copy()]
    optimiser.update_params([p], [g])
    return p, optimiser.ms[0], optimiser.vs[0]


def sgd(p, g, v, *, lr, momentum):
    """Its velocity is ours times -lr."""
    p = p.copy()
    optimiser = _stochastic_optimizers.SGDOptimizer([p], lr, "constant", momentum, False)
    optimiser.velocities = [(-lr * v).astype(p.dtype)]
    optimiser.update_params([p], [g])
    return p, (optimiser.velocities[0] / -lr).astype(p.dtype)
