"""Agreement of the models with other frameworks, a family a file; scripts/crosscheck.py runs them all."""
