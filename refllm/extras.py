"""The optional parts, and how they are installed where the user is. pyproject.toml lists the same."""

from __future__ import annotations

import os
import shlex
import sys

from refllm.invocation import VARIABLE, typed

EXTRAS = {
    "plot": ("matplotlib>=3.9",),
    "explain": ("matplotlib>=3.9", "scikit-learn>=1.6", "lime>=0.2", "shap>=0.46"),
    "eval": ("scikit-learn>=1.4", "sacrebleu>=2.4"),
    "mpi": ("mpi4py>=4", "mpich>=4"),
}


def how_to_install(extra: str, *requirements: str) -> str:
    """The command that installs an optional part; of one that EXTRAS lacks, with its requirements.

    From a checkout the script installs it into its own environment. Elsewhere the packages are named themselves, and
    the Python that is running: refllm need not have been installed to be used there.
    """
    if os.environ.get(VARIABLE):
        return f"{typed()} install {extra}"
    return how_to_install_package(*(requirements or EXTRAS[extra]))


def how_to_install_package(*requirements: str) -> str:
    """The command that installs packages into the Python that is running."""
    return f"{shlex.quote(sys.executable)} -m pip install {shlex.join(requirements)}"


def optional_parts() -> str:
    """What there is to install beside refllm itself, and how, for the help."""
    parts = {
        "plot": "pictures",
        "eval": "BLEU, chrF and Naive Bayes",
        "explain": "LIME and SHAP",
        "mpi": "several ranks",
    }
    lines = (f"  {what:<28}{how_to_install(extra)}" for extra, what in parts.items())
    return "\n".join(["optional parts, and how to install them here:", *lines])
