"""The bank of mutants: realistic mistakes, most of them edits of the specification's own lines.

It measures the golden files (every mutant must fail some case) and it diagnoses: an answer equal to a mutant's, on the
same input, says which mistake was made. A file a topic; `bank` says what a mutant is, `equivalent` lists changes that
are no mistakes, with their proofs.
"""

from __future__ import annotations

from refllm.verify.mutants import (
    attention,
    beam,
    bert,
    bidirectional,
    classification,
    contrastive,
    cross_attention,
    earlier,
    encoder_decoder,
    far,
    feed_forward,
    further_optimisers,
    gated_recurrent,
    gates,
    grouped,
    linear,
    llama,
    logit_filters,
    loss,
    models,
    norms,
    optimiser,
    positions,
    practice,
    recurrent,
    relative,
    rotary,
    routing,
    sampling,
    schedule,
    softmax,
    switch,
    top_experts,
    variants,
)
from refllm.verify.mutants.bank import Edited, Equivalent, Mutant, Patch, Site, edit, planted, traced
from refllm.verify.mutants.equivalent import EQUIVALENT

__all__ = ["EQUIVALENT", "MUTANTS", "Edited", "Equivalent", "Mutant", "Patch", "Site", "edit", "planted", "traced"]

TOPICS = (
    attention, linear, positions, rotary, relative, norms, gates, feed_forward, grouped, routing, softmax, loss,
    contrastive, optimiser, schedule, sampling, models, llama, switch, recurrent, bidirectional, earlier, bert,
    classification, cross_attention, encoder_decoder, beam, practice, top_experts, gated_recurrent, logit_filters,
    further_optimisers, variants, far,
)  # fmt: skip
MUTANTS: tuple[Mutant, ...] = tuple(mutant for topic in TOPICS for mutant in topic.MUTANTS)
