"""HTML pages: a report on a pipeline or a run, and a timeline of the labels in clips.

A report reads data (`sources`, `predictions`), analyses it (`analysis`), and shows it (`figures`, `sections`, `parts`,
`page`). `clips` and `timeline` make the other page.
"""
