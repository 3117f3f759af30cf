"""Laws of the pages in Chinese: they say what the English ones say, number for number."""

from __future__ import annotations

from pathlib import Path

import pytest

from book import golden, labels, languages, mistakes

DOCS = Path(__file__).resolve().parents[2] / "docs"
ENGLISH = """# A title

[This chapter in Chinese](../zh/page.md)

The *width* is $C = 512$, see [blocks](blocks.md#x), and `softmax` has 12 rows.
It goes on.

| letter | what is it |
|---|---|
| $C$ | the width of the model |

- one item with $\\text{words} + 1$
- another with 7

```{example}
>>> 1 + 1  # a sum
2
```

```{steps}
dx = dy | T, C | \\d x = \\d y | the sum $y = x$ passes it on
```

```{drawn} masks
:alt: Two grids of 4 rows.
Filled: may attend.
```
"""
CHINESE = """---
lang: zh
---

# 标题

[English](../book/page.md)

见 [各层](../book/blocks.md#x)：*宽度*为 $C=512$，`softmax` 有 12 行。还有下文。

| 字母 | 含义 |
|---|---|
| $C$ | 模型的宽度 |

- 一项，带 $\\text{文字} + 1$
- 另一项，带 7

```{example}
>>> 1 + 1  # 和
2
```

```{steps}
dx = dy | T, C | \\d x = \\d y | 和 $y = x$ 把它传下去
```

```{drawn} masks
:alt: 两个 4 行的格子图。
填充：可以关注。
```
"""


def differences(chinese: str) -> list[str]:
    return list(languages.differences(ENGLISH, chinese, "page.md"))


def test_a_translation_has_no_difference() -> None:
    assert differences(CHINESE) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("512", "256"),
        ("C=512", "D=512"),
        ("`softmax`", "`log_softmax`"),
        ("12 行", "13 行"),
        ("12 行", "行"),
        ("blocks.md#x", "gpt.md#x"),
        ("带 7", "带 8"),
        (">>> 1 + 1", ">>> 1 + 2"),
        ("\n2\n", "\n3\n"),
        ("T, C |", "C, T |"),
        ("\\d x = \\d y", "\\d x = -\\d y"),
        ("$y = x$", "$y = z$"),
        ("{drawn} masks", "{drawn} growth"),
        ("两个 4 行", "两个 5 行"),
        ("+ 1$", "- 1$"),
        ("- 另一项，带 7\n", ""),
        ("| $C$ | 模型的宽度 |\n", ""),
        ("# 标题", "## 标题"),
    ],
)
def test_whatever_differs_is_told(old: str, new: str) -> None:
    assert old in CHINESE
    assert differences(CHINESE.replace(old, new, 1)) != []


@pytest.mark.parametrize(
    ("line", "english"),
    [
        (
            "见 [各层](../book/blocks.md#x)：*宽度*为 $C=512$，`softmax` 有 12 行。还有下文。",
            "See [blocks](../book/blocks.md#x): the *width* is $C=512$, and `softmax` has 12 rows.",
        ),
        (":alt: 两个 4 行的格子图。\n填充：可以关注。", ":alt: Two grids of 4 rows.\nFilled: may attend."),
        ("| $C$ | 模型的宽度 |", "| $C$ | the width of the model |"),
        ("和 $y = x$ 把它传下去", "the sum $y = x$ passes it on"),
    ],
)
def test_a_part_that_is_not_translated_is_told(line: str, english: str) -> None:
    assert line in CHINESE
    (said,) = differences(CHINESE.replace(line, english))
    assert "not translated" in said


def test_the_pages_in_chinese_say_what_the_english_ones_say() -> None:
    assert list(languages.faults(DOCS)) == []


@pytest.mark.one_in(4)
@pytest.mark.parametrize("path", sorted((DOCS / "zh").glob("*.md")), ids=lambda path: path.stem)
def test_a_digit_that_is_changed_anywhere_in_a_chinese_page_is_told(path: Path, request: pytest.FixtureRequest) -> None:
    english, chinese = ((DOCS / folder / path.name).read_text(encoding="utf-8") for folder in ("book", "zh"))
    digits = [place for place, sign in enumerate(chinese) if sign.isdigit()]
    for place in digits if request.config.getoption("--slow") else digits[::5]:
        changed = f"{chinese[:place]}{(int(chinese[place]) + 1) % 10}{chinese[place + 1 :]}"
        assert list(languages.differences(english, changed, path.name)) != [], chinese[place - 20 : place + 20]


@pytest.mark.every
def test_a_digit_that_is_changed_in_an_erratum_is_told() -> None:
    translated = languages.translated_errata(DOCS)
    for name, entry in translated.items():
        for part, text in entry.items():
            for place, sign in enumerate(text):
                if sign.isdigit():
                    wrong = f"{text[:place]}{(int(sign) + 1) % 10}{text[place + 1 :]}"
                    changed = {**translated, name: {**entry, part: wrong}}
                    assert list(languages.differences_of_errata(changed)) != [], (name, part)


def test_most_of_the_evidence_is_translated() -> None:
    """New cases and mistakes may stand in English for a while; most do not."""
    shown = [
        name for page in ("attention", "softmax-losses", "embedding-positions") for name in ids_with_evidence(page)
    ]
    for kind, found in (("cases", golden.of), ("mistakes", mistakes.of)):
        about = {each.about for name in shown for each in found(name)}
        known = about & languages.translated_evidence(DOCS)[kind].keys()
        assert len(known) > 0.9 * len(about)


def ids_with_evidence(page: str) -> list[str]:
    written = (DOCS / f"zh/{page}.md").read_text(encoding="utf-8")
    return [name for line in written.splitlines() if line.startswith("```{evidence}") for name in line.split()[1:]]


@pytest.mark.parametrize("kind", ["cases", "mistakes"])
def test_a_digit_that_is_changed_in_the_evidence_is_told(kind: str) -> None:
    translated = languages.translated_evidence(DOCS)
    for english, chinese in translated[kind].items():
        for place, sign in enumerate(chinese):
            if sign.isdigit():
                wrong = f"{chinese[:place]}{(int(sign) + 1) % 10}{chinese[place + 1 :]}"
                changed = {"cases": {}, "mistakes": {}, kind: {english: wrong}}
                assert list(languages.differences_of_evidence(changed)) != [], english


def test_evidence_whose_english_words_are_gone_is_told() -> None:
    (said,) = languages.differences_of_evidence({"cases": {"nothing at all": "什么也没有"}, "mistakes": {}})
    assert "nothing at all" in said


def test_words_of_a_figure_are_translated_all_or_none() -> None:
    svg = '<text x="1">causal</text><text>6</text><text>key &amp; value</text>'
    words = {"causal": "因果", "key & value": "键 & 值"}
    assert labels.translated(svg, words) == '<text x="1">因果</text><text>6</text><text>键 &amp; 值</text>'
    with pytest.raises(LookupError, match="no words for causal"):
        labels.translated(svg, {"key & value": "键 & 值"})
    with pytest.raises(LookupError, match="does not say query"):
        labels.translated(svg, {**words, "query": "查询"})


def test_a_page_without_an_english_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "zh").mkdir()
    (tmp_path / "book").mkdir()
    (tmp_path / "zh/alone.md").write_text(CHINESE, encoding="utf-8")
    assert list(languages.faults(tmp_path)) == ["zh/alone.md translates no page of book"]
