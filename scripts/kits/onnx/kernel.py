"""Softmax, layer norm and their gradients as graphs of ONNX, for `refllm verify`. Put your model in the place of one.

An operation is given NumPy arrays and keywords; it returns its value and a function from the gradient of the value to
the gradients of the arrays. Here both are graphs of ONNX operators; `run` evaluates one by ONNX Runtime, or by the
reference of ONNX where that is not installed. A model without a graph for the gradient returns its value alone.
"""

import functools

import numpy
from onnx import parser

try:
    from onnxruntime import InferenceSession
except ImportError:
    from onnx.reference import ReferenceEvaluator

DTYPES = ["float32"]
GRAPH = '<ir_version: 8, opset_import: ["": 17]> f ({inputs}) => ({outputs}) {{ {body} }}'


@functools.cache
def session(inputs, outputs, body):
    said = [", ".join(f"float{shape} {name}" for name, shape in those) for those in (inputs, outputs)]
    model = parser.parse_model(GRAPH.format(inputs=said[0], outputs=said[1], body=body))
    try:
        return InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except NameError:
        return ReferenceEvaluator(model)


def run(body, outputs, **inputs):
    """The outputs, names with their numbers of axes, of a graph in ONNX's text format."""
    for x in inputs.values():
        if x.size == 0:
            raise NotImplementedError("ONNX Runtime gives nothing for an empty array")

    def shaped(name, axes):
        return name, "[" + ", ".join(f"{name}{n}" for n in range(axes)) + "]"

    given = tuple(shaped(name, x.ndim) for name, x in inputs.items())
    wanted = tuple(shaped(name, axes) for name, axes in outputs.items())
    found = session(given, wanted, body).run(None, {name: numpy.ascontiguousarray(x) for name, x in inputs.items()})
    return tuple(found) if len(found) > 1 else found[0]


def softmax(x):
    if (x == -numpy.inf).all(-1).any():
        raise NotImplementedError("a row of only -infinity is NaN in ONNX")
    y = run("y = Softmax <axis = -1> (x)", {"y": x.ndim}, x=x)

    def back(dy):
        body = (
            "axis = Constant <value_ints = [-1]> () y = Softmax <axis = -1> (x) all = Mul (y, dy)"
            " along = ReduceSum <keepdims = 1> (all, axis) less = Sub (dy, along) dx = Mul (y, less)"
        )
        return run(body, {"dx": x.ndim}, x=x, dy=dy)

    return y, back


NORMAL = (
    "mean = ReduceMean <axes = [-1]> (x) c = Sub (x, mean) cc = Mul (c, c)"
    " variance = ReduceMean <axes = [-1]> (cc) shifted = Add (variance, eps) root = Sqrt (shifted) n = Div (c, root) "
)


def layer_norm(x, g, b, *, eps):
    eps = numpy.array([eps], "float32")
    y = run(NORMAL + "scaled = Mul (n, g) y = Add (scaled, b)", {"y": x.ndim}, x=x, g=g, b=b, eps=eps)

    def back(dy):
        rows = ", ".join(str(axis) for axis in range(x.ndim - 1))
        body = NORMAL + (
            "dn = Mul (dy, g) mean_dn = ReduceMean <axes = [-1]> (dn) dn_n = Mul (dn, n)"
            " along = ReduceMean <axes = [-1]> (dn_n) n_along = Mul (n, along) less = Sub (dn, mean_dn)"
            " rest = Sub (less, n_along) dx = Div (rest, root) dy_n = Mul (dy, n) "
        )
        if rows:
            body += f"rows = Constant <value_ints = [{rows}]> () dg = ReduceSum <keepdims = 0> (dy_n, rows)"
            body += " db = ReduceSum <keepdims = 0> (dy, rows)"
        else:
            body += "dg = Identity (dy_n) db = Identity (dy)"
        return run(body, {"dx": x.ndim, "dg": 1, "db": 1}, x=x, g=g, dy=dy, eps=eps)

    return y, back
