"""Checks that a step can become part of a graph: a CUDA graph, or one of torch.compile."""

from __future__ import annotations

WARM_UP = 2
"""Ordinary steps before a graph may be made of one: the first has no update to look back on."""


def check_graph(warm: int, restores: bool) -> None:
    """Refuses to be taken into a graph.

    Args:
        warm: ordinary steps so far.
        restores: whether `Guards(restore=...)` is on.

    Raises:
        RuntimeError: with restores, and before the end of the warm-up.
    """
    if restores:
        raise RuntimeError(
            "a graph is made of this step, and guards=Guards(restore=...) looks at each step from the host: leave "
            "restore out, or the graph"
        )
    if warm < WARM_UP:
        raise RuntimeError(
            f"a graph is made of this step, which is the {warm + 1}. of this MetaLR: take {WARM_UP} steps "
            "before, as the first ones make what the later ones fill in place"
        )
