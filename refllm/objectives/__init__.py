"""Objectives: a batch to its loss and the gradient of the parameters."""
