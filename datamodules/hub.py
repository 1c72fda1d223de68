"""One way to every data set: a hub id, or a local folder in the hub's layout, with errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

TIMEOUT = 5.0
"""Seconds that the hub has to answer a first question, before any retry."""

HUB_ID = re.compile(r"[\w.-]*\w(/[\w.-]*\w)?")

_reached: set[tuple[str, str]] = set()


def load(
    path: str, name: str | None = None, split: str = "train", *, streaming: bool = False
) -> Dataset | IterableDataset:
    """Loads `datasets.load_dataset(path, name)[split]`.

    What the hub gave once is cached, and found there when the hub is out of reach.

    Args:
        path: hub id such as "nyu-mll/glue", or a folder in the same layout.
        name: configuration; None where there is one, or a default.
        split: such as "train".
        streaming: read while iterating, rather than download first.

    Raises:
        FileNotFoundError: for a folder that does not exist, or holds no data.
        ValueError: for an unknown id, configuration or split, or an empty split.
        PermissionError: for a gated data set without access.
        ConnectionError: after `TIMEOUT` seconds, where the hub does not answer and its cache is empty.
    """
    return _pick(_all_splits(path, name, streaming), path, split)


def splits(path: str, name: str | None = None) -> list[str]:
    """Lists the names of the splits; as `load` in everything else."""
    return list(_all_splits(path, name, streaming=False))


def local_folder(path: str) -> Path | None:
    """Returns the folder that `path` names, or None where it can only be a hub id.

    Raises:
        FileNotFoundError: where it can only be a folder, and there is none.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if HUB_ID.fullmatch(path):
        return None
    raise FileNotFoundError(f"path={path!r}: no such folder; give one in the hub's layout, or a hub id (owner/name)")


def _all_splits(path: str, name: str | None, streaming: bool) -> Any:
    folder = local_folder(path)
    if folder is not None:
        return _load(path, str(folder), name, streaming)
    if hub_answers(path, "dataset"):
        return _load(path, path, name, streaming)
    with _offline():
        return _load(path, path, name, streaming)


def _load(path: str, source: str, name: str | None, streaming: bool) -> Any:
    import datasets  # two seconds: late
    from datasets.exceptions import DatasetNotFoundError

    try:
        return datasets.load_dataset(source, name, streaming=streaming)
    except ConnectionError as error:
        raise ConnectionError(
            f"path={path!r}: no such folder here, and the hub is out of reach; give path=<folder in the hub's "
            "layout>, or connect (and unset HF_HUB_OFFLINE)"
        ) from error
    except DatasetNotFoundError as error:
        raise _no_access(path, error) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"path={path!r} holds no data files in the hub's layout") from error
    except ValueError as error:
        if empty := re.search(r'Instruction "(.+)" corresponds to no data', str(error)):
            raise ValueError(f"path={path!r}: split {empty[1]!r} is empty; fill it, or delete its file") from error
        reason = " ".join(str(error).splitlines()[:2])  # the second line lists the configurations
        if reason.startswith("BuilderConfig") and Path(source).is_dir():
            reason += (
                ": give each a folder of its name, or for GLUE train.csv and validation.csv (or .tsv) with headers"
            )
        raise ValueError(f"path={path!r}, name={name!r}: {reason}") from error


def _no_access(path: str, error: Exception) -> Exception:
    if "gated" in str(error):
        return PermissionError(
            f"path={path!r} is gated: accept its terms on its page on the hub, then run `hf auth login` or set "
            "HF_TOKEN; or give path=<folder>"
        )
    return ValueError(f"path={path!r}: no such folder here, and no such public data set on the hub")


def _pick(splits: Any, path: str, split: str) -> Any:
    if split not in splits:
        raise ValueError(f"split={split!r}: {path} has {', '.join(splits)}")
    return splits[split]


def hub_answers(path: str, kind: Literal["dataset", "model"]) -> bool:
    """Tests whether the hub answers at all, within `TIMEOUT` seconds; libraries retry for half a minute or more.

    Args:
        path: hub id.
        kind: what it names.
    """
    if (path, kind) in _reached:
        return True
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        ask = HfApi().dataset_info if kind == "dataset" else HfApi().model_info
        ask(path, timeout=TIMEOUT)
    except HfHubHTTPError:  # an answer: unknown or gated, which the library that loads it tells apart
        pass
    except Exception:  # whatever the HTTP client of the day calls it: no name, no route, no answer, offline mode
        return False
    _reached.add((path, kind))
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Lets `load_dataset` go straight to its cache."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
