"""The bank of mutants: realistic mistakes, most of them edits of the specification's own lines.

It measures the golden files (every mutant must fail some case) and it diagnoses: an answer equal to a mutant's, on the
same input, says which mistake was made. A file a topic; `bank` says what a mutant is, `equivalent` lists changes that
are no mistakes, with their proofs.
"""

from __future__ import annotations

from refllm.verify.mutants import (
    attention,
    attention_variants,
    beam,
    bert,
    bidirectional,
    byte_pairs,
    classification,
    contrastive,
    conversions,
    cross_attention,
    encoder_decoder,
    feed_forward,
    fine_tuning,
    further_optimisers,
    gated_recurrent,
    gates,
    grouped,
    linear,
    llama,
    logit_filters,
    loss,
    masking,
    models,
    norms,
    optimiser,
    padded_generation,
    parallel,
    positions,
    recurrent,
    recurrent_models,
    relative,
    repeat_heads,
    rms_norm,
    rotary,
    rotary_scaling,
    routing,
    sampling,
    schedule,
    softmax,
    switch,
    top_experts,
)
from refllm.verify.mutants.bank import Edited, Equivalent, Mutant, Patch, Site, edit, planted, traced
from refllm.verify.mutants.equivalent import EQUIVALENT

__all__ = ["EQUIVALENT", "MUTANTS", "Edited", "Equivalent", "Mutant", "Patch", "Site", "edit", "planted", "traced"]

TOPICS = (
    attention, linear, positions, rotary, relative, norms, rms_norm, gates, repeat_heads, feed_forward, grouped,
    routing, softmax, loss, contrastive, optimiser, schedule, sampling, models, llama, switch, recurrent, bidirectional,
    recurrent_models, bert, classification, cross_attention, encoder_decoder, beam, fine_tuning, masking, byte_pairs,
    padded_generation, top_experts, gated_recurrent, logit_filters, further_optimisers, attention_variants,
    rotary_scaling, conversions, parallel,
)  # fmt: skip
MUTANTS: tuple[Mutant, ...] = tuple(mutant for topic in TOPICS for mutant in topic.MUTANTS)
