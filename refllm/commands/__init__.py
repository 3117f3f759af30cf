"""The commands of `refllm`, one a file: DESCRIPTION, LESS_MEMORY (how to need less), add_arguments, run."""
