"""The truth side of the golden files: scripts/golden and what it wrote."""

import sys
from pathlib import Path

# The generator is a script with a package beside it, not a part of refllm.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
