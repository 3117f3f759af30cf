"""Mistakes of ports that are no edit of one expression: of what a configuration says, of how weights are read, of the
order of layers, and habits of other code.
"""
