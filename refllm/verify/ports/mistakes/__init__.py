"""Mistakes of ports that are no edit of one expression: of what a configuration says, of how weights are read, of the
order of layers, and habits of other code (`habits`, `residuals`, `families`).

Habits in families: `families`, `masks`, `rotation`; numbers that a model multiplies by: `scales`.

Of weights: `read_otherwise` (a leaf by itself), `columns` (heads, parts and pairs), `biases` (one part of what is
joined), `exchanged` (one in the place of another), `gains` (those of several norms), `outputs` (their order in a small
head), `halves` (one of these in both halves); `leaves` finds what a step reads.
`after_taps` has values that are right and are taken for each other.

And edits that only the text of models has: two steps in the other order (`step_order`), and one edit at both places
that are alike (`twice`).
"""
