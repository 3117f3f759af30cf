"""Right implementations, and operations at size, that the spread of rounding errors is calibrated with."""
