"""Why a model says what it says, as far as that can be computed: attention weights, and gradients of its answer.

attention.py    which keys each head of each layer weighs, and how much
attribution.py  how much of an answer each token accounts for: integrated gradients, gradient x input
classifier.py   both for a classifier of texts
"""
