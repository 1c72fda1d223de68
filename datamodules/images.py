"""Reading image data sets: their columns, decoding with errors that name the image, and checked labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class ImageColumns:
    """Names the columns of images and labels, which differ between copies on the hub ("img", "image", "fine_label").

    Attributes:
        image: name of the image column.
        label: name of the label column.
        names: of the classes, by label.
    """

    image: str
    label: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, features: Mapping[str, Any] | None, path: str) -> ImageColumns:
        """Finds the first column of images and the first of class labels.

        Args:
            features: types of the data set's columns, by name.
            path: of the data set, for the message.

        Raises:
            ValueError: for a data set without either.
        """
        from datasets import ClassLabel
        from datasets import Image as ImageFeature

        features = features or {}
        images = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
        labels = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
        if not images or not labels:
            raise ValueError(
                f"path={path!r} has columns {', '.join(features) or 'unknown'}: needs one of type Image and one of "
                "type ClassLabel"
            )
        return cls(images[0], labels[0], tuple(features[labels[0]].names))


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Checks that all labels are in [0, classes).

    Raises:
        ValueError: for one that is not, naming its row; -1 marks a split whose labels are withheld.
    """
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if bad.size:
        raise ValueError(
            f"{where}, row {bad[0]}: label {labels[bad[0]]} is outside 0..{classes - 1} ({bad.size} such rows); "
            "choose a labelled split, or correct the data"
        )


def decode(read: Callable[[], Any], where: str) -> Image.Image:
    """Decodes the image that `read` returns to RGB.

    Raises:
        ValueError: for an image that cannot be decoded, naming it by `where`.
    """
    try:
        image: Image.Image = read().convert("RGB")
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, DecompressionBombError, ...
        raise ValueError(f"{where}: broken image ({type(error).__name__}: {error}); remove or replace it") from error
    return image


class ImageRows(Dataset):
    """Reads (transformed image, label) of a data set's rows, decoded when they are asked for.

    Args:
        rows: data set of the hub or a folder.
        columns: names of its image and label columns.
        transform: PIL image -> tensor.
        split: name of the split, for messages.

    Raises:
        ValueError: for a label out of range.
    """

    def __init__(
        self, rows: datasets.Dataset, columns: ImageColumns, transform: Callable[[Image.Image], Tensor], split: str
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.transform = transform
        self.split = split
        self.labels = np.asarray(rows.with_format("numpy")[columns.label][:])
        check_labels(self.labels, len(columns.names), f"split {split!r}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = decode(lambda: self.rows[index][self.columns.image], f"split {self.split!r}, row {index}")
        return self.transform(image), int(self.labels[index])
