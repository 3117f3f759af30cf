"""The truth behind golden/: the plain text (refllm/spec) on exact numbers, and the conditions of what it gives.

Read in this order: evaluate.py (the text, asked), truth.py (two precisions, one rounding), changes.py, forms.py and
conventions.py (what may be written otherwise, as changes of the text), margins.py, cases/ (what is asked), writer.py
(files). Nothing here imports the fast code: what checks it must not come from it.
"""
