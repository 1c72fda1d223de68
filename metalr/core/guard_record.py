"""The record of what the guards did: events, a log line at each guard's first action, and divergence reported."""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from metalr.core.guards import GUARDS, Guards

EVENTS = 100
"""Events that are kept; older ones are forgotten, and their interventions still counted."""

logger = logging.getLogger("metalr")

_WORDS = {
    "non_finite": "the loss, a gradient or the action was not finite: the decision is frozen and the rate halved",
    "limit": "the policy asked for a multiplier outside of [min_multiplier, max_multiplier]: it stays at the limit",
    "out_of_distribution": "the features lie outside of what the policy was meta-trained on: its change is faded, and "
    "the rate goes on along the reference schedule",
    "divergence": "the loss stands far above its best and stays there: the rate is halved",
    "collapse": "the run has lost what it had learned or began with: the rate falls to a tenth, and stays below that",
}


class DivergenceError(RuntimeError):
    """Reports that the loss stands far above its best, where `Guards(on_divergence="raise")` asked for it."""


@dataclass(frozen=True)
class GuardEvent:
    """Reports a guard that acted, once or at steps that follow each other.

    Attributes:
        guard: its name, out of `metalr.core.guards.GUARDS`.
        step: of its first action, from 0.
        last: step of its last action. Where the decisions are taken on a device, both are known as closely as the
            record is read.
        count: number of interventions.
        log_multiplier: s after the first action, nats.
        features: by name, at the first action; all 0 where they could not be measured.
        restored: step to which weights and optimizer went back, where they did.
    """

    guard: str
    step: int
    last: int
    count: int
    log_multiplier: float
    features: dict[str, float] = field(repr=False)
    restored: int | None = None


class GuardRecord:
    """Turns the counts of the guards' interventions into events.

    Args:
        guards: settings; of these, what a divergence does.
    """

    def __init__(self, guards: Guards) -> None:
        self._divergence = guards.on_divergence
        self._counts = dict.fromkeys(GUARDS, 0)
        self.events: deque[GuardEvent] = deque(maxlen=EVENTS)

    @property
    def counts(self) -> dict[str, int]:
        """Actions of each guard."""
        return dict(self._counts)

    def note(
        self,
        counts: Iterable[int],
        since: int,
        step: int,
        log_multiplier: float,
        features: dict[str, float],
        restored: int | None = None,
    ) -> None:
        """Takes in what happened up to a step.

        Args:
            counts: interventions of each guard so far, in the order of `GUARDS`.
            since: step that was looked at before this one; what acted then and again is one event.
            step: that they were read after.
            log_multiplier: s_t, nats.
            features: of that step by name.
            restored: step to which a collapsed run has gone back.

        Raises:
            DivergenceError: for a new divergence, where that was asked for.
        """
        fresh = {guard: count - self._counts[guard] for guard, count in zip(GUARDS, counts, strict=True)}
        for guard, more in fresh.items():
            if more > 0:
                back = restored if guard == "collapse" else None
                event = GuardEvent(
                    guard=guard,
                    step=step,
                    last=step,
                    count=more,
                    log_multiplier=log_multiplier,
                    features=features,
                    restored=back,
                )
                self._add(event, since)
        if fresh["divergence"] > 0:
            self._report(step, features)

    def _add(self, event: GuardEvent, since: int) -> None:
        if self._counts[event.guard] == 0:
            logger.warning("metalr: guard %s acts at step %d: %s", event.guard, event.step, _WORDS[event.guard])
        if event.restored is not None:
            logger.warning("metalr: weights and optimizer go back from step %d to step %d", event.step, event.restored)
        self._counts[event.guard] += event.count
        for index, old in enumerate(self.events if event.restored is None else ()):
            if old.guard == event.guard and old.last >= since:
                self.events[index] = replace(old, last=event.last, count=old.count + event.count)
                return
        self.events.append(event)

    def _report(self, step: int, features: dict[str, float]) -> None:
        seen = ", ".join(f"{name} {value:.2f}" for name, value in features.items())
        message = f"the loss diverges at step {step}: it stands far above its best and stays there ({seen})"
        if self._divergence == "raise":
            raise DivergenceError(message)
        if self._divergence == "warn":
            warnings.warn(message, stacklevel=5)

    def state_dict(self) -> dict[str, Any]:
        """Counts and events: numbers and strings."""
        return {"counts": self.counts, "events": [asdict(event) for event in self.events]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
        self._counts = dict.fromkeys(GUARDS, 0) | state["counts"]
        self.events = deque((GuardEvent(**event) for event in state["events"]), maxlen=EVENTS)
