"""The loss of a batch that is taken in several micro-batches, whose gradients are accumulated."""

from refllm.spec.array import Array, Pullback, stack, total
from refllm.spec.cross_entropy import cross_entropy


def accumulated_cross_entropy(logits: Array, *, targets: Array, ignore: int | None) -> tuple[Array, Pullback]:
    """ACCUM, CE: y = Σ_m (sum of the losses of micro-batch m) / (count of all counted targets)

    So it is the mean over the whole batch, however the targets spread over the micro-batches. The mean of the
    micro-batches' means is another number where their counts differ.
    Source:  issue 34191 of the library transformers.
    Shapes:  logits (M, ..., V); targets (M, ...) in [0, V) -> y ()
    Back:    that of CE's sum for each micro-batch, begun with dy / count

    >>> logits, targets = log(array([[[1., 1.]] * 3, [[1., 3.]] * 3])), array([[0, 0, 0], [0, -1, -1]])
    >>> y = accumulated_cross_entropy(logits, targets=targets, ignore=-1)[0]
    >>> array([y / log(2.)])  # (3 · 1 + 1 · 2) / 4; the mean of the means is (1 + 2) / 2
    array([1.25])
    """
    counted = targets.size if ignore is None else int((targets != ignore).sum())
    count = max(1, counted)
    parts = [cross_entropy(z, targets=t, ignore=ignore, reduction="sum") for z, t in zip(logits, targets, strict=True)]

    def accumulated_cross_entropy_back(dy: Array) -> Array:
        return stack([part_back(dy / count) for _, part_back in parts], axis=0)

    return total(stack([loss for loss, _ in parts], axis=0)) / count, accumulated_cross_entropy_back
