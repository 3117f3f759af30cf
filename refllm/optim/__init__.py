"""Optimisers, schedules and clipping: pure functions on arrays."""
