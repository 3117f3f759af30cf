"""What is released, made from the files of one commit: `scripts/release`. RELEASING.md says when and how.

Standard library alone, but for the wheel and the archive of the sources, which setuptools builds.
"""
