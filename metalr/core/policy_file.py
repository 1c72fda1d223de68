"""Policy files: safetensors, with the weights, what they read, and a checksum of it all.

A policy decides a learning rate, so a file with one flipped bit must not load. Nothing is ever unpickled, nothing is
allocated on a header's word, and whatever is wrong ends in a ValueError that names the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metalr.core.features import FEATURES, OLDEST_SCHEMA, SCHEMA_VERSION

_FORMAT = "metalr.policy"

_RENAMED = {"support.reach": "support.mahalanobis_radius"}
"""Tensors by the names that metalr 0.1.0 wrote them under."""

MAX_BYTES = 2**26
"""Largest file that is read: a policy of the default size takes some 16 kB."""


class PolicyFile(NamedTuple):
    """Holds what a policy file does.

    Attributes:
        features: names that the policy reads.
        hidden: widths of its hidden layers.
        card: free text facts.
        tensors: float32, by name: `layers.<i>.weight`, `layers.<i>.bias`, `support.<part>`.
    """

    features: tuple[str, ...]
    hidden: tuple[int, ...]
    card: dict[str, str]
    tensors: dict[str, Tensor]


def checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Hashes all metadata but the checksum itself and of every tensor's name, shape and bytes: SHA-256 in hex."""
    words = sorted((key, value) for key, value in metadata.items() if key != "checksum")
    digest = hashlib.sha256(json.dumps(words).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def write(path: str | Path, content: PolicyFile) -> None:
    """Writes a policy file, and the folders that lead to it."""
    metadata = {
        "format": _FORMAT,
        "schema_version": str(SCHEMA_VERSION),
        "features": json.dumps(content.features),
        "hidden": json.dumps(content.hidden),
        "card": json.dumps(content.card),
    }
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in content.tensors.items()}
    metadata["checksum"] = checksum(metadata, tensors)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)


def read(path: Path, verify: bool = True) -> PolicyFile:
    """Reads a policy file and checks all of it.

    Args:
        path: of an existing file.
        verify: refuse a file without a checksum, too. One that has a checksum is held to it in any case.

    Raises:
        ValueError: when the file is damaged, no policy, or of another feature schema.
    """
    metadata, tensors = _open(path)
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} is a safetensors file but not a metalr policy; LRPolicy.save writes them")
    version = metadata.get("schema_version")
    if version not in [str(known) for known in range(OLDEST_SCHEMA, SCHEMA_VERSION + 1)]:
        raise ValueError(
            f"policy file {path} has feature schema {version}, this metalr reads {SCHEMA_VERSION}; "
            "install the metalr version it was made with, or meta-train it again"
        )
    named = {_RENAMED.get(name, name): tensor for name, tensor in tensors.items()}
    content = PolicyFile(*_header(path, metadata), named)
    _check_tensors(path, content)
    _check_sum(path, metadata, tensors, verify)
    return content


def _open(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{size} bytes, a policy has {MAX_BYTES} at most")
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"policy file {path} is damaged or not a safetensors file ({error}); restore it from its source, "
            "or write it again with LRPolicy.save"
        ) from error


def _header(path: Path, metadata: dict[str, str]) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, str]]:
    """Returns features, hidden widths and card, each of its type."""
    try:
        features, hidden, card = (json.loads(metadata[key]) for key in ("features", "hidden", "card"))
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"policy file {path} has a damaged header ({error!r}); restore it from its source") from error
    if not (
        _is_list_of(str, features)
        and _is_list_of(int, hidden)
        and isinstance(card, dict)
        and _is_list_of(str, list(card.values()))
        and features
        and len(set(features)) == len(features)
        and set(features) <= set(FEATURES)
        and all(width >= 1 for width in hidden)
    ):
        raise ValueError(
            f"policy file {path} has a damaged header (features, hidden or card are not what LRPolicy.save writes); "
            "restore it from its source"
        )
    return tuple(features), tuple(hidden), card


def _is_list_of(kind: type, value: object) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _check_tensors(path: Path, content: PolicyFile) -> None:
    count, tensors = len(content.features), content.tensors
    expected: dict[str, tuple[int, ...]] = {}
    for index, (inputs, outputs) in enumerate(pairwise((count, *content.hidden, 1))):
        expected |= {f"layers.{index}.weight": (outputs, inputs), f"layers.{index}.bias": (outputs,)}
    if any(name.startswith("support.") for name in tensors):
        expected |= {"support.ranges": (count, 2), "support.centre": (count,)}
        expected |= {"support.whitener": (count, count), "support.mahalanobis_radius": ()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        raise ValueError(f"policy file {path} holds tensors {found}, its header promises {expected}")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"policy file {path}: tensor {name!r} is not finite float32; restore the file")


def _check_sum(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor], verify: bool) -> None:
    found = metadata.get("checksum")
    if found is None and verify:
        raise ValueError(
            f"policy file {path} has no checksum: an older metalr wrote it, or it is damaged. If you trust it, "
            "LRPolicy.load(path, verify=False).save(path) writes it again with one"
        )
    if found is not None and found != checksum(metadata, tensors):
        raise ValueError(f"policy file {path} does not match its checksum: it is damaged; restore it from its source")
