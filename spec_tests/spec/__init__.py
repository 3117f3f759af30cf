"""The plain text of the specification, on exact numbers and beside the fast code."""

import sys
from pathlib import Path

# The margins of decisions are a part of the generator, a script with a package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
