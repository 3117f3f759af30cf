"""The kinds of numbers on which the plain text (refllm/spec) is evaluated.

floats      NumPy's arrays need nothing from here
exact       hundreds of digits, the gradient of a text by its tape, and how an element is conditioned (needs mpmath)
traced      arrays of floats that remember how they were made: the gradient of a changed text
spread      a value and the variance of its rounding error
rules       the one table of derivatives
"""
