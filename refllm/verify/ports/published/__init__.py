"""The forward pass of published models as plain text: the operations of refllm/spec, put together in the steps in which
people port them.

Each intermediate value has a name (`tap`), and a mask, a scale and a residual are statements of their own, so that a
mistake in one of them is an edit of one line. There are no pullbacks. Every function is held to refllm/models.
"""
