"""The figures of a run, of a policy and of a meta-training, by name; each is drawn when it is called with a theme."""

from __future__ import annotations

from functools import partial

import torch

from metalr.core.policy import LRPolicy
from metalr.inspection.history import MetaHistory
from metalr.inspection.plot_decisions import decisions, feature_curves
from metalr.inspection.plot_responses import response_curves, response_history, task_runs
from metalr.inspection.response import Responses, responses, support_states
from metalr.inspection.trace import Trace
from metalr.plotting.canvas import Draw


def of_run(policy: LRPolicy, trace: Trace) -> dict[str, Draw]:
    """Returns the figures of a run: its decisions, its features, and the policy's response around its states."""
    found = responses(policy, torch.from_numpy(trace.values).float())
    return {
        "decisions": partial(decisions, trace),
        "features": partial(feature_curves, trace, support=policy.support),
        "responses": partial(response_curves, found, around="this run's states"),
    }


def of_policy(policy: LRPolicy) -> dict[str, Draw]:
    """Returns the figure of a policy: its response around the states of its meta-training."""
    return {"responses": partial(response_curves, responses_in_support(policy), around=describe_support(policy))}


def of_meta(history: MetaHistory) -> dict[str, Draw]:
    """Returns the figures of a meta-training: the response over time, and the latest runs on fixed tasks."""
    figures: dict[str, Draw] = {"responses_over_time": partial(response_history, history)}
    return figures | ({"fixed_tasks": partial(task_runs, history)} if history.runs else {})


def responses_in_support(policy: LRPolicy) -> Responses:
    """Computes the responses around the states that the policy's file records, or states anywhere in [-3, 3]."""
    return responses(policy, support_states(policy))


def describe_support(policy: LRPolicy) -> str:
    """Describes the states that `responses_in_support` uses."""
    return "the states of its meta-training" if policy.support.is_bounded else "states anywhere in [-3, 3]"
