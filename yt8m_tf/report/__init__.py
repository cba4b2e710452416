"""One page about a pipeline or a run: what is read (`sources`, `predictions`), what is found in it (`analysis`), and
how it is shown (`figures`, `sections`, `parts`, `page`). And one about labels over time in clips (`clips`, `timeline`).
"""
