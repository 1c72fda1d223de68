"""What the site needs beside its pages."""

import re
from pathlib import Path
from typing import Any

LATER = ("cluster.md",)
"""Pages of parts that a checkout may not have yet: they stand in the navigation where they exist."""


def on_config(config: Any) -> Any:
    """Leaves pages out of the navigation that are not there yet."""
    missing = {name for name in LATER if not (Path(config["docs_dir"]) / name).exists()}
    config["nav"] = _without(config["nav"], missing)
    return config


def _without(nav: list[Any], names: set[str]) -> list[Any]:
    kept = []
    for entry in nav:
        ((title, value),) = entry.items()
        if isinstance(value, list):
            kept.append({title: _without(value, names)})
        elif value not in names:
            kept.append(entry)
    return kept


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link to a file of the repository, which is no page, becomes the file's path."""

    def path(match: re.Match[str]) -> str:
        text, target = match[1].strip("`"), match[2]
        return f"`{target}`" if target.endswith(text.strip("/")) else f"{match[1]} (`{target}`)"

    return re.sub(r"\[([^\]]+)\]\(\.\./([^)#]+)\)", path, markdown)
