"""PyTorch's parallel layers as they are, in processes that it starts itself and that talk by gloo.

refllm verify scripts/adapters/torch_parallel_adapter.py --level 7 --dtype float32

For a case of n ranks n processes run the layer. L7 asks for what ONE rank adds to a sum, and these layers give the sum,
of values and of gradients. So the other ranks put zeros in: their weights are 0, or the gradients that they begin with.
What all ranks should have in the end is read from another rank than the one that is asked for: a sum that is not sent,
is sent twice or is divided shows. What the processes run is torch_parallel_layers.py.
"""

import atexit
import contextlib
import functools
import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed

if importlib.util.find_spec("torch") is None:  # which only the processes import
    raise ModuleNotFoundError("No module named 'torch'", name="torch")

DTYPES = ["float64", "float32"]
TOGETHER = 2  # processes for an operation that is not of one rank
OWN_VALUE = {"column_parallel_linear", "sequence_parallel_norm", "data_parallel_cross_entropy", "sharded_adamw"}
OWN_GRADIENT = {"sequence_parallel_norm", "pipeline_stage"}  # only the rank that is asked for has it


class Ranks:
    """So many processes, each of which answers every question; kept for the next question."""

    def __init__(self, count):
        self.folder = tempfile.TemporaryDirectory()
        command = [sys.executable, os.path.abspath(__file__), str(count), f"file://{self.folder.name}/meeting"]
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.processes = [
            subprocess.Popen([*command, str(rank)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=alone)
            for rank in range(count)
        ]
        atexit.register(self.close)

    def ask(self, *question):
        """Everybody's answer. Where one fails, the others may wait for it for ever: all are ended, and it is told."""
        for process in self.processes:
            pickle.dump(question, process.stdin)
            process.stdin.flush()
        with ThreadPoolExecutor(len(self.processes)) as readers:
            reading = [readers.submit(pickle.load, process.stdout) for process in self.processes]
            for done in as_completed(reading):
                failure = done.exception() or done.result()
                if isinstance(failure, Exception):
                    self.kill()
                    raise failure
        return [done.result() for done in reading]

    def kill(self):
        for process in self.processes:
            process.kill()
        started.cache_clear()

    def close(self):
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        for process in self.processes:
            process.wait()
        self.folder.cleanup()


started = functools.cache(Ranks)


def answered(name, arrays, keywords, *, dy=None, own):
    """The value and the gradients, on the rank that is asked for or on the next."""
    count = len(arrays[1]) if name == "sharded_clip" else keywords.get("ranks", TOGETHER)
    answers = started(count).ask(name, arrays, keywords, dy)
    return answers[(keywords.get("rank", 0) + (not own)) % count]


def step(name):
    return lambda *arrays, **keywords: answered(name, arrays, keywords, own=name in OWN_VALUE)[0]


def layer(name):
    """Its value, and a pullback that computes it again."""

    def operation(*arrays, **keywords):
        def back(*dy):
            dx = answered(name, arrays, keywords, dy=dy, own=name in OWN_GRADIENT)[1]
            return dx if len(dx) > 1 else dx[0]

        return step(name)(*arrays, **keywords), back

    return operation


column_parallel_linear, row_parallel_linear = layer("column_parallel_linear"), layer("row_parallel_linear")
parallel_feed_forward, head_parallel_attention = layer("parallel_feed_forward"), layer("head_parallel_attention")
vocabulary_parallel_embedding = layer("vocabulary_parallel_embedding")
cross_entropy = layer("cross_entropy")  # that of L1, with the classes cut
sequence_parallel_norm = layer("sequence_parallel_norm")
pipeline_stage = layer("pipeline_stage")
data_parallel_cross_entropy = layer("data_parallel_cross_entropy")
sharded_squares, sharded_clip, sharded_adamw = map(step, ("sharded_squares", "sharded_clip", "sharded_adamw"))

if __name__ == "__main__":
    import torch_parallel_layers  # it lies beside this file

    torch_parallel_layers.serve(count=int(sys.argv[1]), meeting=sys.argv[2], rank=int(sys.argv[3]))
