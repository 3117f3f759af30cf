import sys

try:
    from refllm.cli import main
except KeyboardInterrupt:  # while NumPy is loaded
    sys.exit(130)
except (MemoryError, ImportError, OSError) as error:
    words = ("failed to map segment", "annot allocate memory")  # as the loader of libraries and the system say it
    if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
        raise
    sys.stderr.write("refllm: there is too little memory to load NumPy; permit more, as by ulimit -v\n")
    sys.exit(2)
sys.exit(main())
