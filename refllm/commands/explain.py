"""refllm explain: which tokens a label comes from, and what each layer and head attends to."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from refllm.backend import allow_tf32, device_namespace
from refllm.cells import cut, padded, widest
from refllm.commands.choices import add_device_arguments
from refllm.commands.explain_page import page
from refllm.commands.explain_picture import draw, require_matplotlib
from refllm.commands.explaining import TOLERANCE, Asked, explained
from refllm.commands.label_report import shown as shown_label
from refllm.directory import require_free
from refllm.errors import UserError
from refllm.explain.classifier import ANSWERS, BASELINES
from refllm.explain.explanation import AttentionMap, Explanation, Grid, LabelScores, chosen_map
from refllm.explain.figures import signed, told_change, told_missing
from refllm.trained import load_model

DESCRIPTION = """Why a run says what it says of a text: what each token accounts for in a label (integrated gradients
or gradient times input), and the attention weights of every layer and head.

example: refllm explain runs/stars "I read it twice." --page why.html
         refllm explain runs/stars "I read it twice." --label 1 --baseline zeros --json
         refllm explain runs/001 "The assert statement" --method attention --layer 2 --head 1 --picture map.png"""

LESS_MEMORY = "give a shorter text"

METHODS = ("integrated-gradients", "gradient", "attention")
STEPS = 4096
BAR = 24  # columns of the longest bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_directory", metavar="RUN", help="a classifier; for attention maps any run of a Transformer")
    add("text", metavar="TEXT")
    add("--method", choices=METHODS, help=f"default {METHODS[0]}; {METHODS[2]} for a run that is no classifier")
    add("--label", help="the label to explain (default: the one that the classifier gives)")
    add("--of", choices=ANSWERS, help=f"what of the label is explained (default {ANSWERS[0]})")
    add("--baseline", choices=BASELINES, help=f"what the text is compared with (default {BASELINES[0]})")
    add("--steps", type=int, help=f"at most so many points on the way from the baseline (default {STEPS})")
    add("--layer", help="of the attention that is shown (default: the last)")
    add("--head", type=int, help="of the attention that is shown, from 1 (default: the mean of all)")
    add("--target", metavar="TEXT", help="for an encoder-decoder: what it writes (default: what it writes by itself)")
    add("--page", metavar="FILE", help="write a page (.html) with the tokens and all attention maps")
    add("--picture", metavar="FILE", help="draw a picture (.png or .svg; needs matplotlib)")
    add("--json", action="store_true", help="the numbers as JSON")
    add_device_arguments(parser)


def run(options: argparse.Namespace) -> int:
    device_namespace(options.device)
    allow_tf32(options.tf32, options.device)
    if not options.text.strip():
        raise UserError("the text is empty; give one with words")
    for path, suffixes in ((options.page, (".html",)), (options.picture, (".png", ".svg"))):
        if path is not None:
            require_free(Path(path), *suffixes)
    if options.picture:
        require_matplotlib()
    trained = load_model(Path(options.run_directory), options.device)
    method = _method(options, is_classifier=trained.description.get("task") == "classify")
    asked = Asked(
        method=method, label=options.label, answer=options.of or ANSWERS[0], baseline=options.baseline or BASELINES[0],
        steps=STEPS if options.steps is None else options.steps, target=options.target, device=options.device,
    )  # fmt: skip
    found = explained(trained, options.text, asked)
    shown = None
    if found.scores is None or found.maps:
        shown = chosen_map(found.maps, layer=options.layer, head=options.head)
    if options.page:
        Path(options.page).write_text(page(found, shown), encoding="utf-8")
    if options.picture:
        draw(found, None if options.layer is None and options.head is None else shown, Path(options.picture))
    if options.json:
        print(json.dumps(found.as_json()))
    else:
        _print(found, shown)
    return 0


def _method(options: argparse.Namespace, *, is_classifier: bool) -> str:
    """The method; UserError for one that the run does not have, and for flags that would have no effect."""
    method = str(options.method or METHODS[0 if is_classifier else 2])
    if method != "attention" and not is_classifier:
        raise UserError(f"{options.run_directory} is no classifier, which --method {method} needs; give attention")
    of_scores = ("label", "of", "baseline", "steps")
    if method == "attention" and (given := [name for name in of_scores if getattr(options, name) is not None]):
        why = "is for a classifier's label" if is_classifier else "is for a classifier"
        raise UserError(f"--{given[0]} {why}, not for attention maps; leave it out")
    if method == "gradient" and options.steps is not None:
        raise UserError("--steps is for integrated gradients; leave it out, or give that method")
    if method != "attention" and not options.page and (options.layer is not None or options.head is not None):
        raise UserError("--layer and --head choose an attention map; give --method attention or --page")
    return method


def _print(found: Explanation, shown: tuple[str, AttentionMap, Grid] | None) -> None:
    if found.probabilities is not None:
        best = sorted(found.probabilities.items(), key=lambda item: -item[1])
        told = (f"{shown_label(label)} {p:.3f}" for label, p in best[:6])
        print("   ".join(told) + ("   ..." if len(best) > 6 else ""))
    if found.scores is not None:
        _print_scores(found.tokens, found.scores)
    elif shown is not None:
        _print_attention(*shown)


def _print_scores(tokens: list[str], s: LabelScores) -> None:
    steps = "" if s.steps is None else f", {s.steps} steps"
    print(f"{s.method.replace('-', ' ')} of the {s.answer} of {shown_label(s.label)}, from {s.baseline}{steps}\n")
    width, numbers = _width(tokens), signed(s.scores, fewest=4)
    number, largest = max(10, 1 + widest(numbers)), max(map(abs, s.scores))
    for token, score, text in zip(tokens, s.scores, numbers, strict=True):
        bar = "█" * round(BAR * abs(score) / (largest or 1.0))
        left, right = (bar, "") if score < 0 else ("", bar)
        print(f"  {padded(cut(token, width), width)}{text:>{number}}  {left:>{BAR}}|{right}")
    print(f"\n  {'sum':<{width}}{signed([sum(s.scores)], fewest=4, like=s.scores)[0]:>{number}}\n  {told_change(s)}")
    print(f"  {told_missing(s)}{_remedy(s)}")


def _remedy(s: LabelScores) -> str:
    change = abs(s.value - s.baseline_value)
    return "; give more --steps" if s.steps is not None and abs(s.missing) > TOLERANCE * change else ""


def _print_attention(name: str, one: AttentionMap, grid: Grid) -> None:
    """What one query attends to: the first token for a model that sees both sides, else the last."""
    both_sides = len(grid) > 1 and any(cell > 0 for cell in grid[0][1:]) and one.queries == one.keys
    place = 0 if both_sides else len(grid) - 1
    width = _width(one.keys)
    print(f"{name}: what {one.queries[place]} (token {place + 1}) attends to\n")
    for token, weight in zip(one.keys, grid[place], strict=True):
        bar = "█" * round(BAR * weight / (max(grid[place]) or 1))
        print(f"  {padded(cut(token, width), width)}{weight:>8.4f}  {bar}")


def _width(tokens: list[str]) -> int:
    return min(widest(tokens), max(8, shutil.get_terminal_size().columns - 2 * BAR - 16))
