"""The sides of `scripts/bench`: what each framework runs, in a process of its own, under one protocol."""
