"""refllm on a device: the strict double of CuPy in every run, a GPU where there is one."""

import sys
from pathlib import Path

# scripts/gpu_check is a script with a package beside it, not a part of refllm.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
