"""The gradient of a linear map: W is read through a flat index as if it were transposed already."""


def linear(x, W, b):
    def back(dy):
        rows, given = x.reshape(-1, x.shape[-1]), dy.reshape(-1, len(b))
        as_it_lies = W.reshape(-1).reshape(W.shape[1], W.shape[0])
        return (given @ as_it_lies).reshape(x.shape), rows.T @ given, given.sum(0)

    return x @ W + b, back
