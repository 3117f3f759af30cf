"""The loss that all language models are trained by."""

from collections.abc import Callable

from refllm.spec.array import Array, Pullback, Tree
from refllm.spec.cross_entropy import cross_entropy


def next_token_loss(
    model: Callable[..., tuple[Array, Pullback]],
    p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree,
) -> tuple[Array, Pullback]:  # fmt: skip
    """NLL: y = mean of -log P(target | the tokens up to its place), over the targets that are not ignored

    Source:  documents 002 sec. 3.3, 4.2; 004 sec. 2.3.
    Shapes:  ids (..., T) in [0, V); targets (..., T) in [0, V) -> y ()
    """
    logits, model_back = model(p, ids=ids, config=config)
    y, cross_entropy_back = cross_entropy(logits, targets=targets, ignore=ignore, reduction="mean")

    def next_token_loss_back(dy: Array) -> Tree:
        return model_back(cross_entropy_back(dy))

    return y, next_token_loss_back
