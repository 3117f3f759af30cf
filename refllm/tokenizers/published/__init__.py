"""Tokenizers of published models: tokenizer.json, vocab.json with merges.txt, vocab.txt.

A text goes through five stages: added tokens are cut out of it, the rest is normalised and split into words, each
word is cut into pieces of the vocabulary, and a template puts special tokens around. Every character remembers which
characters of the text it comes from. Ids and offsets are those of the library `tokenizers`, whose files these are.
"""
