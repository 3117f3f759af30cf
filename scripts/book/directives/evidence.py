"""What holds an operation, and where it comes from: `{laws}`, `{cases}`, `{mistakes}`, `{conventions}`, `{sources}`,
`{erratum}`, `{printed}`, and all of the first five as sections, `{evidence}`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import ClassVar

from docutils import nodes

from book import golden, languages, laws, mistakes, places
from book.directives.directive import Details, Directive, Foreign, PageError, Spoken, chinese, coded, link, table
from refllm.spec.registers import Paper, errata, sources
from spec_tests.spec import citations

SHOWN = 12  # more lines than these are opened by the reader


class Told(Directive):
    """What is said of cases and mistakes, in the language of the page as far as it is translated."""

    def about(self, kind: str, words: str) -> list[nodes.Node]:
        if not self.translated:
            return coded(words)
        known = languages.translated_evidence(Path(self.env.srcdir))[kind]
        if words in known:
            return coded(known[words])
        return [Spoken("", "", *coded(words), lang="en")]


class Laws(Directive):
    """The tests that speak of an operation, or of all operations of an ID."""

    def made(self) -> list[nodes.Node]:
        operations = {function.name: None for name in self.arguments for function in self.functions(name)}
        code = [each for name in self.arguments if name in sources().entries for each in sources().entries[name].code]
        own_files = {f"test_{operation}.py" for operation in operations}
        found = sorted(
            {law for operation in operations for law in laws.of(operation)}
            | {law for each in code for law in laws.of_code(each)},
            key=lambda law: (law.path.rpartition("/")[2] not in own_files, law.path, law.line),
        )
        of_each = sorted(
            {law for name in operations for law in laws.of_each(name)} - {*found}, key=lambda law: law.path
        )
        self.record.add("laws", self.page, *self.arguments)
        if not found and not of_each:
            raise PageError(f"no test speaks of {', '.join(operations) or ', '.join(self.arguments)}")
        return [*self._said(found, ""), *self._said(of_each, " (of every operation)")]

    def _said(self, found: list[laws.Law], what: str) -> list[nodes.Node]:
        said = []
        for path, group in groupby(found, key=lambda law: law.path):
            own = list(group)
            items = [nodes.list_item("", nodes.paragraph("", "", *coded(law.says))) for law in own]
            said.append(Details("", nodes.bullet_list("", *items), summary=f"{path}{what}: {len(own)}"))
        return said


class Cases(Told):
    """The golden cases of IDs or operations."""

    def made(self) -> list[nodes.Node]:
        found = {case: None for name in self.arguments for case in golden.of_id(name)}
        self.record.add("cases", self.page, *self.arguments)
        if not found:
            raise PageError(f"there are no golden cases of {', '.join(self.arguments)}")
        rows = [(nodes.literal("", case.id), self.about("cases", case.about), f"golden/{case.file}") for case in found]
        made = table([self.said(head) for head in ("case", "about", "file")], rows, [30, 50, 20])
        if len(rows) <= SHOWN:
            return [made]
        return [Details("", made, summary=self.said("{} golden cases").format(len(rows)))]


class Mistakes(Told):
    """The known mistakes of IDs or operations, as diffs of the text, those with a public report first."""

    def made(self) -> list[nodes.Node]:
        found = list({mistake: None for name in self.arguments for mistake in mistakes.of_id(name)})
        self.record.add("mistakes", self.page, *self.arguments)
        if not found:
            raise PageError(f"there are no known mistakes of {', '.join(self.arguments)}")
        reported = [mistake for mistake in found if mistake.issue]
        others = [mistake for mistake in found if not mistake.issue]
        made = [node for mistake in reported for node in self._said(mistake)]
        if others:
            inside = [node for mistake in others for node in self._said(mistake)]
            more = f"{{}} {'more ' if reported else ''}mistakes that the golden files catch"
            made.append(Details("", *inside, summary=self.said(more).format(len(others))))
        return made

    def _said(self, mistake: mistakes.Mistake) -> list[nodes.Node]:
        head = nodes.paragraph("", "", nodes.strong("", mistake.id), nodes.Text(" "))
        head += self.about("mistakes", mistake.about)
        head += nodes.Text(self.said(". "))
        if mistake.issue:
            head += [nodes.Text(" "), link(short(mistake.issue), mistake.issue)]
        said: list[nodes.Node] = [head]
        for place, lines in mistake.diff:
            shown = "\n".join([f"@@ {place} @@", *lines])
            said.append(nodes.literal_block(shown, shown, language="diff"))
        return said


def short(address: str) -> str:
    """`https://github.com/onnx/onnx/pull/8068` as onnx/onnx #8068."""
    parts = address.removeprefix("https://github.com/").split("/")
    return f"{parts[0]}/{parts[1]} #{parts[3]}" if len(parts) == 4 and parts[3].isdigit() else address


class Conventions(Directive):
    """What the formula of an operation leaves open, the value that the cases follow, and the others."""

    def made(self) -> list[nodes.Node]:
        from golden.conventions import CONVENTIONS, OF_OPERATION

        names = [name for operation in self.arguments for name in OF_OPERATION.get(operation, ())]
        if not names:
            raise PageError(f"no convention is known of {', '.join(self.arguments)}")
        values = {name: list(CONVENTIONS[name]) for name in names}
        rows = [(nodes.literal("", name), own, ", ".join(others)) for name, (own, *others) in values.items()]
        return [table([self.said(head) for head in ("convention", "here", "elsewhere")], rows, [30, 25, 45])]


class Sources(Directive):
    """Where IDs come from: sections of the documents, and papers."""

    def made(self) -> list[nodes.Node]:
        items = []
        self.record.add("sources", self.page, *self.arguments)
        for name in self.arguments:
            entry = sources().entries.get(name)
            if entry is None:
                raise PageError(f"{name} is no ID of refllm/spec/sources.toml")
            for number, section in places.cited(entry.documents) if entry.documents else ():
                items.append(self._section(name, number, section))
            for cited in entry.primary:
                items.append(self._paper(name, cited))
        if not items:
            items = [nodes.list_item("", nodes.paragraph("", "A name used only in this repository."))]
        return [nodes.bullet_list("", *dict.fromkeys(items))]

    def _section(self, name: str, number: str, section: str) -> nodes.list_item:
        document = sources().documents[number]
        listed = document.sections.get(section)
        title, english = (listed.title, listed.english) if listed else (document.title, document.english)
        place = f"{name}: {self.said('document')} {number} {section}".rstrip()
        words = nodes.paragraph("", f"{place}, ")
        words += [chinese(title)] if self.translated else [chinese(title), nodes.Text(f" ({english})")]
        return nodes.list_item("", words)

    def _paper(self, name: str, cited: str) -> nodes.list_item:
        words = nodes.paragraph("", f"{name}: {cited}")
        for paper in papers(cited):
            words += nodes.Text(". ")
            words += nodes.emphasis("", "", Spoken(paper.title, paper.title, lang="en"))
            words += nodes.Text(f", {paper.venue}")
            if paper.arxiv:
                words += [nodes.Text(", "), link(f"arXiv:{paper.arxiv}", f"https://arxiv.org/abs/{paper.arxiv}")]
        return nodes.list_item("", words)


def papers(cited: str) -> list[Paper]:
    """Those that a citation names, by their numbers, else by authors and year."""
    numbers = [found["arxiv"] or found["acl"] for found in citations.IDENTIFIER.finditer(cited)]
    by_number = [paper for paper in sources().papers if {paper.arxiv, paper.acl} & {n for n in numbers if n}]
    if by_number:
        return by_number
    return [
        paper
        for found in citations.PAPER.finditer(cited)
        for year in (found[2], found[3])
        if year
        for paper in citations.papers_cited(found[1], int(year), sources())
    ]


ERRATUM = {"printed": "printed", "holds": "what holds", "why": "why"}  # its parts, and how a page calls them


class Erratum(Directive):
    """A mistake of the documents: what is printed, what holds, why, and what shows it. With `:here:` the place
    is the one that the register leads to."""

    option_spec: ClassVar = {"here": lambda given: True}

    def made(self) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        for name in self.arguments:
            erratum = errata().get(name)
            if erratum is None:
                raise PageError(f"{name} is not in refllm/spec/errata.toml")
            words = self._words(name)
            rows = [(self.said(part), " ".join(words[key].split())) for key, part in ERRATUM.items()]
            rows.append((self.said("shown by"), ", ".join(erratum.shown_by)))
            head = [f"{self.said('erratum')} {name}", f"{self.said('documents')} {erratum.documents}"]
            block = table(head, rows, [18, 82])
            block["classes"].append("book-erratum")
            if "here" in self.options:
                anchor = f"erratum-{name.lower()}"
                if not self.translated:
                    self.record.place(self.record.errata, name, self.place(anchor, name))
                block["ids"] = [anchor]
            made.append(block)
        return made

    def _words(self, name: str) -> dict[str, str]:
        if self.translated:
            return languages.translated_errata(Path(self.env.srcdir))[name]
        return {key: getattr(errata()[name], key) for key in ERRATUM}


class Printed(Directive):
    """`{printed} sizes of models`: a number that the documents print, and the bar that running code has to meet."""

    def made(self) -> list[nodes.Node]:
        what = " ".join(self.arguments)
        found = [figure for figure in sources().figures if figure.what == what]
        if not found:
            known = "; ".join(figure.what for figure in sources().figures)
            raise PageError(f"sources.toml has no figure {what!r}: {known}")
        (figure,) = found
        anchor = "printed-" + what.replace(" ", "-")
        self.record.place(self.record.figures, what, self.place(anchor, what))
        rows = [("printed", figure.printed), ("to be met", figure.bar)]
        block = table([figure.what, f"documents {figure.documents}"], rows, [18, 82])
        block["ids"] = [anchor]
        return [block]


IN_ENGLISH = (Laws, Conventions)  # on every page: the names of tests and conventions stay what they are


class Evidence(Directive):
    """`{evidence} ATT ATT-MASK`: sections with laws, golden cases, usual mistakes, conventions and sources."""

    def made(self) -> list[nodes.Node]:
        operations = list({f.name: None for name in self.arguments for f in self.functions(name)})
        made = []
        made.append(self._section("Laws", Laws))
        if any(golden.of_id(name) for name in self.arguments):
            made.append(self._section("Golden cases", Cases))
        if any(mistakes.of_id(name) for name in self.arguments):
            made.append(self._section("Usual mistakes", Mistakes))
        from golden.conventions import OF_OPERATION

        open_ones = [operation for operation in operations if operation in OF_OPERATION]
        if open_ones:
            made.append(self._section("Conventions", Conventions, open_ones))
        made.append(self._section("Sources", Sources))
        return made

    def _section(self, title: str, kind: type[Directive], arguments: list[str] | None = None) -> nodes.section:
        own = kind(
            self.name, arguments or self.arguments, {}, self.content, self.lineno, self.content_offset,
            self.block_text, self.state, self.state_machine,
        )  # fmt: skip
        anchor = nodes.make_id(f"{title}-{'-'.join(self.arguments)}")
        content = own.run()
        if self.translated and kind in IN_ENGLISH:
            content = [Foreign("", *content, lang="en")]
        return nodes.section("", nodes.title("", self.said(title)), *content, ids=[anchor], names=[anchor])
