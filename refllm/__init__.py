"""refllm: the executable specification of a language model.

An operation returns its value and its pullback:

    y, back = layer_norm(x, g, b, eps=1e-5)
    dx, dg, db = back(dy)

Start reading in `refllm/ops/`, then `refllm/blocks/`, then `refllm/models/gpt.py`.
"""

import time

__version__ = "0.1.0"

IMPORTED = time.perf_counter()  # when a command began, which then loads NumPy (refllm/invocation.py)
