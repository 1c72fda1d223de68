"""The report of a comparison: tables, verdicts, plots, and the page that has them all.

A plot is a function of `plots`, a table one of `tables`; values become text in `text` alone, and curves SVG in `svg`.
It may import the rest of `metalr.compare` and `metalr.plotting`; of `metalr.compare`, only `command` imports it.
"""

from metalr.compare.report.page import print_tables, write_report

__all__ = ["print_tables", "write_report"]
