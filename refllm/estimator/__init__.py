"""A classifier of texts with scikit-learn's interface: what LIME, SHAP, `Pipeline` and `cross_val_score` ask for."""

from __future__ import annotations

from refllm.estimator.classifier import TextClassifier

__all__ = ["TextClassifier"]
