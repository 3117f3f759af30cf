"""Blocks: operations put together.

A block takes its input and its parameters, a dict, and returns its value and its pullback; the pullback calls those of
its operations in reverse and returns the gradient of the input and a dict of gradients with the parameters' names.
"""
