"""The predicted spread of rounding errors, beside the errors of PyTorch's kernels."""

from __future__ import annotations

from typing import Any

from book.figures import Theme, stored

MARKS = "osD^v<>PX*ph"


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    figure, (kernels, products) = pyplot.subplots(1, 2, figsize=(9.2, 4.4))
    _kernels(kernels, colours)
    _products(products, colours)
    return figure


def _kernels(axes: Any, colours: Theme) -> None:
    """A mark for each value and gradient: on the diagonal the error is the predicted one."""
    results = stored("spread")["results"]
    names = list(dict.fromkeys(_operation(result) for result in results))
    for number, name in enumerate(names):
        own = [result for result in results if _operation(result) == name]
        axes.scatter(
            [result["predicted"] for result in own], [result["observed"] for result in own], s=26, label=name,
            marker=MARKS[number % len(MARKS)], color=colours.series[number % len(colours.series)],
        )  # fmt: skip
    axes.axline((1e-7, 1e-7), (2e-7, 2e-7), color=colours.faint, linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=(2.5e-8, 1.3e-6), ylim=(1.6e-9, 1.3e-6))
    axes.set(xlabel="predicted: one standard deviation", ylabel="observed", title="PyTorch's kernels")
    axes.grid()
    axes.legend(fontsize=8, ncols=2, loc="lower right", handletextpad=0.2, columnspacing=0.8)


def _operation(result: dict[str, Any]) -> str:
    return str(result["case"]).replace("wide ", "")


def _products(axes: Any, colours: Theme) -> None:
    products = stored("spread")["products"]
    lengths = [product["length"] for product in products]
    bound, observed, predicted = colours.series[1], colours.series[0], colours.series[2]
    axes.plot(lengths, [each["bound"] for each in products], "s--", label="bound: all roundings together", color=bound)
    axes.plot(lengths, [each["predicted"] for each in products], "^-", label="predicted spread", color=predicted)
    axes.plot(lengths, [each["observed"] for each in products], "o-", label="observed", color=observed)
    axes.set_xscale("log", base=4)
    axes.set(yscale="log", xlabel="length of the vectors", ylabel="error", title="product of two vectors")
    axes.grid()
    axes.legend(fontsize=9, loc="upper left")
