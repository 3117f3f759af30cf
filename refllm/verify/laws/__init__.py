"""Laws that hold for every right implementation and that no stored number shows: they are tried with further calls.

    for result in held(implementation, results, "float32", C, seconds=10): ...

A second call gives the same; so do the same numbers in another layout, beside other rows of a batch, and in memory that
was full of NaN; what the text does not look at may hold anything; and numbers that are drawn when the run begins, which
nobody can have stored, are answered as the text answers them. Each law is tried on a few cases of each operation.
"""

from refllm.verify.laws.trying import CASES, held

__all__ = ["CASES", "held"]
