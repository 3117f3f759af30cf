"""ONNX' operators as functions, by the standard's own evaluator, or by ONNX Runtime: values alone.

refllm verify scripts/adapters/onnx_operators.py --values --dtype float32
ONNX_BY=runtime refllm verify scripts/adapters/onnx_operators.py --values --dtype float32
"""

import functools

from onnx_adapter import node  # it lies beside this file

SIGNATURES, DTYPES = "onnx", ["float64", "float32"]
TRAINING = {"Adam", "Momentum"}
NAMES = (
    "Softmax LogSoftmax Relu Tanh Gelu Swish LayerNormalization RMSNormalization Gemm MatMul Mul Gather Attention "
    "SoftmaxCrossEntropyLoss RNN LSTM Adam Momentum"
)
for name in NAMES.split():
    globals()[name] = functools.partial(node, name, domain="ai.onnx.preview.training" if name in TRAINING else "")
