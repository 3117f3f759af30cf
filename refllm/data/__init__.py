"""Text, its split, and the windows that a model trains on."""
