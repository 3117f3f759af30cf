"""The layers of a model cut over ranks, through which the parts of a batch go one after the other."""

from refllm.spec.array import Array, Pullback, Tree, stack
from refllm.spec.feed_forward import feed_forward
from refllm.spec.shard import shard
from refllm.spec.tree import each, plus


def pipeline_stage(x: Array, p: Tree, *, activation: str, ranks: int, rank: int) -> tuple[Array, Pullback]:
    """PAR, FFN: h = h + FFN(h) through the own layers, for each micro-batch x[m] by itself; y is sent to the next rank

    On the way back a rank gets dy of each micro-batch and sends dx. It needs what it kept of that micro-batch.
    Source:  Narayanan et al. 2021 (arXiv:2104.04473) sec. 2.2.
    Shapes:  x (M, ..., C); W1 (C, F); b1 (F,); W2 (F, C); b2 (C,) -> y (M, ..., C)
    Back:    dp is the sum over the micro-batches, 0 for the layers of others. The loss is divided by the count of the
             whole batch, so nothing is divided here

    >>> layers = {"layers": [{"W1": ones((1, 1)), "W2": array([[w]])} for w in (1., 2.)]}  # 2 h and 3 h, for h > 0
    >>> sent = pipeline_stage(array([[1.], [2.]]), layers, activation="relu", ranks=2, rank=0)[0]
    >>> sent, pipeline_stage(sent, layers, activation="relu", ranks=2, rank=1)[0]
    (array([[2.],
           [4.]]), array([[ 6.],
           [12.]]))
    """
    layers = p["layers"]
    own = shard(len(layers), ranks=ranks, rank=rank)
    outputs, kept = [], []
    for h in x:
        backs = []
        for layer in layers[own]:
            a, feed_forward_back = feed_forward(h, layer, activation=activation)
            h = h + a
            backs.append(feed_forward_back)
        outputs.append(h)
        kept.append(backs)

    def pipeline_stage_back(dy: Array) -> tuple[Array, Tree]:
        dlayers, inputs = each(lambda w: 0 * w, layers), []
        for m, dh in enumerate(dy):
            for n in reversed(range(own.start, own.stop)):
                da, dlayer = kept[m][n - own.start](dh)
                dh = dh + da
                dlayers[n] = plus(dlayers[n], dlayer)
            inputs.append(dh)
        return stack(inputs, axis=0), {"layers": dlayers}

    return stack(outputs, axis=0), pipeline_stage_back
