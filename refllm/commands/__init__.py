"""The commands of `refllm`, one a file: HELP, DESCRIPTION, add_arguments and run."""
