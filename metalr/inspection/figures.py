"""The figures of a run, of a policy and of a meta-training, by name."""

from __future__ import annotations

from functools import partial

import torch

from metalr.core.policy import LRPolicy
from metalr.inspection.history import MetaHistory
from metalr.inspection.plot_decisions import decisions, feature_curves
from metalr.inspection.plot_responses import response_curves, response_history, task_runs
from metalr.inspection.response import Responses, known_states, responses
from metalr.inspection.trace import Trace
from metalr.plotting.canvas import Draw


def of_run(policy: LRPolicy, trace: Trace) -> dict[str, Draw]:
    """What a policy did in a run, and how it responds around the run's states."""
    found = responses(policy, torch.from_numpy(trace.values).float())
    return {
        "decisions": partial(decisions, trace),
        "features": partial(feature_curves, trace, support=policy.support),
        "responses": partial(response_curves, found, around="this run's states"),
    }


def of_policy(policy: LRPolicy) -> dict[str, Draw]:
    """How a policy responds around the states that it was meta-trained on."""
    return {"responses": partial(response_curves, around_known(policy), around=known_words(policy))}


def of_meta(history: MetaHistory) -> dict[str, Draw]:
    """How a policy's response changed over its meta-training, and its runs on fixed tasks."""
    figures: dict[str, Draw] = {"responses_over_time": partial(response_history, history)}
    return figures | ({"fixed_tasks": partial(task_runs, history)} if history.runs else {})


def around_known(policy: LRPolicy) -> Responses:
    """Responses around the states that the policy's file says it knows."""
    return responses(policy, known_states(policy))


def known_words(policy: LRPolicy) -> str:
    """What these states are, in words."""
    return "the states of its meta-training" if policy.support.is_bounded else "states anywhere in [-3, 3]"
