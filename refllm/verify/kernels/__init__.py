"""The text with loops: operations in tiles, blocks and steps, as kernels compute them, and their mistakes.

machine       tiles, memory that nobody has written, narrow numbers
products, softmaxes, losses, norms, flash, heads, tables, turns, updates, steps, elementwise
              the operations, equal to the plain text
bank          what a mistake is: an edit of these lines
mistakes      all of them, a file a topic
diagnosis     a wrong answer to a sized case that is one of them
table         which sized case each one gets wrong
"""
