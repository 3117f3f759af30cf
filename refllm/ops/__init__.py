"""The operations: one concept per file, each returning its value and its pullback.

A public function of this package IS an operation, and the tests hold every one of them to the rules: its docstring
has a `Shapes:` line; `back` returns the gradients of the positional arguments in their order; inputs are never
changed; `back` is pure and linear; dtypes are kept; the gradient agrees with the difference quotient.
"""
