"""Is an implementation right, and if not, what is wrong with it?

corpus     the golden files -> cases, everything about them checked
adapter    a Python module as an implementation; `external` a command, or files that were written beforehand
runner     an implementation and a case -> a result; `tolerance` says how near is near enough
diagnosis  what the wrong answers of a run are equal to: a known mistake of `mutants`, another convention, a constant
           factor; `candidates` what one of them alone is near to
report     the results of a run; `report_text` shows them, `report_data` gives them as JSON, `pages` as JUnit and as a
           page; `reproduction` says how to see a failure again
"""
