"""Cases at the sizes of kernels: their inputs come from a generator, their truth from the plain text.

generator   64-bit words from a seed, a name and a counter
profiles    tensors of numbers with at most 8 significant bits from these words
probes      which elements of a tensor are looked at, and the signs of its sum
cases       the files of golden/sized
evaluate    the text in float64, with the spread of its rounding error
judge       an answer against it
pattern     where the wrong elements are, in words
"""
