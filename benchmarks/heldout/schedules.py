"""The schedules that the suite compares."""

from __future__ import annotations

from benchmarks.suites.schedules import LEARNED, RIVALS
from metalr.schedules import SHAPES

TUNED = (*SHAPES, "wsd", "one_cycle")
"""Hand-made schedules, each from every initial rate."""

ORDER = (*LEARNED, "cosine", "linear", "wsd", "one_cycle", "step", "constant", *RIVALS)
"""All schedules, as the report has them."""
