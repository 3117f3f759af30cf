"""Mistakes of ports that are no edit of one expression: of what a configuration says, of how weights are read, of the
order of layers, and habits of other code.

Of weights: `read_otherwise` (a leaf by itself), `columns` (heads, parts and pairs), `biases` (one part of what is
joined), `exchanged` (one in the place of another); `leaves` finds what a step reads.
`after_taps` has values that are right and are taken for each other.
"""
