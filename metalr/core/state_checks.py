"""Checks that a run can resume from a stored state of MetaLR."""

from __future__ import annotations

from typing import Any

STATE_VERSION = 7
"""Version of `MetaLR.state_dict`; counts up whenever what is in it changes."""

OLDEST_STATE = 6
"""The oldest version that is read."""


def check_state(state: dict[str, Any], policy: str, total_steps: int | None, groups: int) -> None:
    """Refuses a state that a run cannot go on from.

    Args:
        state: of `MetaLR.state_dict`.
        policy: fingerprint of the run's own.
        total_steps: horizon of the run.
        groups: number of the optimizer's parameter groups.

    Raises:
        ValueError: for a state of another version, policy, or mode, or of more groups.
    """
    _check_version(state.get("version"))
    if state["policy"] != policy:
        raise ValueError("state was written with another policy; pass the same policy= to go on with it")
    if (state["total_steps"] is None) != (total_steps is None):
        raise ValueError(
            f"state has total_steps={state['total_steps']}, this run {total_steps}: one of them is in "
            "the anytime mode; give total_steps to both or to neither"
        )
    if len(state["base_lrs"]) > groups:
        raise ValueError(
            f"state has {len(state['base_lrs'])} parameter groups, the optimizer {groups}: make the optimizer with the "
            "groups that it had"
        )


def _check_version(version: object) -> None:
    if not isinstance(version, int) or not OLDEST_STATE <= version <= STATE_VERSION:
        newer = isinstance(version, int) and version > STATE_VERSION
        raise ValueError(
            f"state has version {version}, this metalr reads {STATE_VERSION}: "
            + ("upgrade metalr to resume from it" if newer else "resume with the older metalr that wrote it")
        )
