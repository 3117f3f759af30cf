"""The book: docs/ rendered with what the specification says, computes and is held to.

text       functions of the plain text, as they stand in refllm/spec
examples   code of a page, run while it is rendered, and the numbers that the page states
golden     the golden cases; `mistakes` the bank of mutants; `laws` the tests; `places` sections of the documents
coverage   what the pages show, and what is missing
mathml     TeX to MathML
pages      what was built: links, alternative texts, nothing from elsewhere
directives what the pages call, for Sphinx; `extension` joins all
figures    what is drawn while the book is built
"""
