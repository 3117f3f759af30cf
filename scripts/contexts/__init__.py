"""The measurements of scripts/context."""
