"""What scripts/measure_scaling.py is made of."""
