"""Commands as one types them: values as arguments, references to the environment, quoting."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

REFERENCE = re.compile(r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})", re.ASCII)
"""A reference to the environment as `expand` and a shell both read it: `$NAME` or `${NAME}`."""

_UNSET = re.compile(r"\$\{?([A-Za-z_]\w*)", re.ASCII)


def expand(arguments: Iterable[str]) -> list[str]:
    """Reads `$NAME` and `${NAME}` in arguments from the environment.

    Raises:
        ValueError: for a variable that is not set.
    """
    expanded = [os.path.expandvars(argument) for argument in arguments]
    for argument in expanded:
        if missing := _UNSET.search(argument):
            raise ValueError(f"{argument}: {missing[1]} is not set: export {missing[1]}=<folder>, or change the option")
    return expanded


def references(arguments: Iterable[str]) -> list[str]:
    """Names the variables of the environment that arguments refer to, in alphabetical order."""
    found = (match[0].strip("${}") for argument in arguments for match in REFERENCE.finditer(argument))
    return sorted(set(found))


def command_line(arguments: Iterable[str]) -> str:
    r"""Quotes a command for a POSIX shell, so that it is one command with exactly these arguments.

    References to the environment stand in double quotes, where a shell still reads them; everything else that a shell
    would act on stands in single quotes.

    Example:
        >>> command_line(["train.py", "--data.path=$METALR_DATA/adult", "--name=a b; c"])
        'train.py --data.path="$METALR_DATA"/adult \'--name=a b; c\''
    """
    return " ".join(map(_quoted, arguments))


def _quoted(argument: str) -> str:
    parts, end = [], 0
    for match in REFERENCE.finditer(argument):
        parts += [argument[end : match.start()], match[0]]
        end = match.end()
    parts.append(argument[end:])
    if len(parts) == 1:
        return shlex.quote(argument)
    return "".join(f'"{part}"' if i % 2 else shlex.quote(part) if part else "" for i, part in enumerate(parts))


def fit_options(configs: Iterable[str], overrides: Mapping[str, Any]) -> list[str]:
    """Makes the arguments of `fit` that merge configs and set options over them."""
    return [*(f"--config={path}" for path in configs), *(f"--{k}={yaml_value(v)}" for k, v in overrides.items())]


def yaml_value(value: Any) -> str:
    """Writes a value as one command-line argument."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")
