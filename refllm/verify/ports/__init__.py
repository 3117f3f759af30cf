"""Ports of published models: what one computes on chosen inputs is held to the plain text of the model (`published`),
and where it begins to differ, an edit of that text, of its configuration or of how its weights are read is sought
that gives the same numbers.

    program      the text of one model as steps, one after the other         chosen     the inputs
    truth        what a right port computes, and how far rounding moves it    judged     where a port differs
    candidates   the mistakes that are tried (`mistakes`)                     trials     the text with one in it
    search       which of them it is, in what order they are tried (`found`)  port       a port as an implementation
    fitted       what only the answers say: numbers, weights                  relation   the first wrong value in words
    report       what is said of it
"""
