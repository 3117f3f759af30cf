"""What the pages call, for Sphinx."""
