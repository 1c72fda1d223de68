"""Right: the tests that are marked `gpu`, each with its outcome."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from benchmarks.accelerator.report import Report, Setting

TESTS = "tests/gpu"


def measure(setting: Setting, report: Report) -> None:
    """Runs the tests, and reports how each ended.

    Raises:
        SystemExit: where one of them fails.
    """
    results = setting.out / "right.xml"
    where = {"METALR_GPU_TESTS_ON": setting.device.type}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        TESTS,
        f"--junitxml={results}",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, env=os.environ | where, check=False)
    for row in outcomes(results):
        report.add(**row)
    if done.returncode:
        raise SystemExit(done.returncode)


def outcomes(results: Path) -> list[dict[str, str | float]]:
    """Reads JUnit's XML: name, outcome, seconds and, of a test that did not pass, why."""
    rows: list[dict[str, str | float]] = []
    for case in ET.parse(results).iter("testcase"):
        failed = next((each for each in case if each.tag in ("failure", "error", "skipped")), None)
        outcome = "passed" if failed is None else failed.tag
        why = "" if failed is None else failed.get("message", "")[:300]
        rows.append(
            {"test": case.get("name", ""), "outcome": outcome, "seconds": float(case.get("time", 0)), "why": why}
        )
    return rows
