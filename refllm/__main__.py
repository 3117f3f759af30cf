import sys

from refllm.cli import main

sys.exit(main())
