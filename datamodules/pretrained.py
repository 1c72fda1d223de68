"""Loading tokenizers, and locating models on the hub or in a folder, with errors that name the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datamodules.hub import hub_answers, local_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def locate(path: str) -> dict[str, Any]:
    """Returns the arguments with which transformers' `from_pretrained` finds `path`.

    An unreachable hub is detected within seconds; earlier downloads are read from the cache.

    Args:
        path: hub id such as "google-bert/bert-base-uncased", or a folder.

    Raises:
        FileNotFoundError: for a path that can only be a folder, and does not exist.
    """
    folder = local_folder(path)
    if folder is not None:
        return {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    return {"pretrained_model_name_or_path": path, "local_files_only": not hub_answers(path, "model")}


def missing(path: str, what: str, local: bool, error: Exception) -> Exception:
    """Makes the exception to raise if `from_pretrained` found no `what` at `path`.

    Args:
        path: as given by the user.
        what: the missing thing, such as "tokenizer".
        local: whether the hub was not asked.
        error: raised by transformers.
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
    """Loads a tokenizer that pads on the right and has a padding token.

    GPT-2 must be padded on the right: its positions count from the left.

    Args:
        path: hub id or folder.
        pad_token: a token of the vocabulary to pad with, for a tokenizer without a padding token.

    Raises:
        ValueError: for a tokenizer without a padding token, or a `pad_token` that is not in its vocabulary.
        FileNotFoundError: for a folder without a tokenizer.
        ConnectionError: for an unreachable hub whose tokenizer is not in the cache.
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
    """Loads a tokenizer as it is, with or without a padding token.

    Args:
        path: hub id or folder.

    Raises:
        FileNotFoundError: for a folder without a tokenizer.
        ConnectionError: for an unreachable hub whose tokenizer is not in the cache.
        ValueError: for an id that has no tokenizer on the hub.
    """
    from transformers import AutoTokenizer  # late: importing it takes seconds

    source = locate(path)
    try:
        return AutoTokenizer.from_pretrained(**source)
    except (OSError, ValueError) as error:
        raise missing(path, "tokenizer", source["local_files_only"], error) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
