"""What training takes on many processes: time, memory, bytes and money, from a few numbers of a machine and a model.

links        how long a message takes, and the exchanges that are made of messages
machines     what a process computes in a second, its memory, its links, its price
workloads    what a step of a model computes and keeps; the published sizes
cuts         how a model and a batch are cut over processes, and what each of them sends for it
memory       what a process keeps
steps        the time of a step, and that of a whole training
trainer      what the ranks of refllm itself send in a step
search       the fastest cut that fits
"""
