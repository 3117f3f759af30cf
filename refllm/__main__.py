import sys

try:
    from refllm.cli import main
except KeyboardInterrupt:  # while NumPy is loaded
    sys.exit(130)
sys.exit(main())
