"""The truth behind golden/: formulas over exact-enough numbers, their gradients and their conditioning.

Read in this order: tape.py (numbers that remember how they were made), formulas.py, optimisers.py, model.py and
sampling.py (the mathematics), truth.py (two precisions, one rounding), cases/ (what is asked), writer.py (files).
Nothing here imports refllm: what checks the code must not come from the code.
"""
