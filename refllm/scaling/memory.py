"""What one process keeps."""

from __future__ import annotations

from refllm.scaling.cuts import MOMENTS, WEIGHTS, Cut
from refllm.scaling.workloads import Workload

KEPT = 34  # bytes for each number of a layer's input, in 16 bits, with attention that keeps no scores


def held(workload: Workload, cut: Cut) -> float:
    """Bytes of weights, gradients and moments.

    Source:  Rajbhandari et al. 2020 (arXiv:1910.02054) sec. 3.1 and 5.
    """
    parameters = workload.parameters / (cut.tensor * cut.pipeline)
    weights, gradients, state = (parameters * n for n in (workload.number, workload.number, workload.state))
    if cut.state == WEIGHTS:
        return (weights + gradients + state) / cut.copies
    return weights + gradients + state / (cut.copies if cut.state == MOMENTS else 1)


def activations(workload: Workload, cut: Cut) -> float:
    """Bytes kept for the backward pass by the first process of a pipeline, which has the most micro-batches on the way,
    and those of the logits.

    Source:  Korthikanti et al. 2022 (arXiv:2205.05198) sec. 4.1, 4.2.3 and 4.3, without the scores of attention.
    """
    micro = min(cut.micro, cut.texts(workload))
    tokens = micro * workload.context / cut.sequence
    numbers = tokens * workload.width / cut.tensor
    layer = KEPT / 2 * workload.number * numbers
    layers = -(-workload.layers // cut.pipeline)
    under_way = min(cut.pipeline, cut.micro_batches(workload))
    kept = layers * workload.number * numbers * under_way + layer if cut.recompute else layers * layer * under_way
    return kept + 4 * tokens * workload.vocabulary / cut.tensor


def needed(workload: Workload, cut: Cut) -> float:
    return held(workload, cut) + activations(workload, cut)
