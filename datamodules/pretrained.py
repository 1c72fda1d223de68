"""Tokenizers, and where their models are: a hub id or a local folder, with errors that say what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datamodules.hub import TIMEOUT, local_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_reached: set[str] = set()


def locate(path: str) -> dict[str, Any]:
    """The arguments with which transformers' `from_pretrained` finds `path`.

    A hub that is out of reach is found out within seconds; what it gave before is in the cache.

    Args:
        path: hub id such as "google-bert/bert-base-uncased", or a folder.

    Raises:
        FileNotFoundError: where `path` can only be a folder, and there is none.
    """
    folder = local_folder(path)
    if folder is not None:
        return {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    return {"pretrained_model_name_or_path": path, "local_files_only": not _hub_answers(path)}


def missing(path: str, what: str, local: bool, error: Exception) -> Exception:
    """What to raise where `from_pretrained` found no `what` at `path`.

    Args:
        path: as given by the user.
        what: such as "tokenizer".
        local: whether the hub was left out.
        error: what transformers said.
    """
    if local_folder(path) is not None:
        return FileNotFoundError(f"{path!r} holds no {what} that transformers can read: {_first_line(error)}")
    if local:
        return ConnectionError(
            f"{path!r}: no such folder here, and the hub is out of reach; give a folder with the {what}, or connect "
            "(and unset HF_HUB_OFFLINE)"
        )
    return ValueError(f"{path!r}: no {what} of this name on the hub for you: {_first_line(error)}")


def load_tokenizer(path: str, pad_token: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer that pads on the right and has a padding token.

    GPT-2 must be padded on the right: its positions count from the left.

    Args:
        path: hub id or folder.
        pad_token: a token of the vocabulary to pad with, where the tokenizer has none of its own.

    Raises:
        ValueError: where there is no padding token, or none such in the vocabulary.
        FileNotFoundError: where a folder holds no tokenizer.
        ConnectionError: where the hub is out of reach, and the cache has none.
    """
    tokenizer = any_tokenizer(path)
    tokenizer.padding_side = "right"
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise ValueError(f"pad_token={pad_token!r} is not in the vocabulary of {path!r}")
        tokenizer.pad_token = pad_token
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"tokenizer={path!r} has no padding token: give pad_token=<a token of its vocabulary>"
            + (f", such as {tokenizer.eos_token!r}" if tokenizer.eos_token else "")
        )
    return tokenizer


def any_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """A tokenizer as it is, padding token or not.

    Args:
        path: hub id or folder.

    Raises:
        FileNotFoundError: where a folder holds no tokenizer.
        ConnectionError: where the hub is out of reach, and the cache has none.
        ValueError: where the hub has no such tokenizer.
    """
    from transformers import AutoTokenizer  # seconds: late

    source = locate(path)
    try:
        return AutoTokenizer.from_pretrained(**source)
    except (OSError, ValueError) as error:
        raise missing(path, "tokenizer", source["local_files_only"], error) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _hub_answers(path: str) -> bool:
    """Whether the hub answers at all; without this, `from_pretrained` retries for most of a minute."""
    if path in _reached:
        return True
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(path, timeout=TIMEOUT)
    except HfHubHTTPError:  # an answer: unknown or gated, which from_pretrained tells apart
        pass
    except Exception:  # whatever the HTTP client of the day calls it: no name, no route, no answer, offline mode
        return False
    _reached.add(path)
    return True
