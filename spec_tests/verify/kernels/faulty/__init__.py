"""Kernels of strangers in NumPy, each with one fault: none is an edit of a text of refllm."""
