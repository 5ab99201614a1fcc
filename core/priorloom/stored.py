"""One slice of an image file on a wanted grid: what simulated cases of files are made of."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn.functional import interpolate

from .errors import ReaderError
from .train.images import read_slices


def stored_slice(path: Path, image_shape: tuple[int, int]) -> tuple[Tensor, str]:
    """The middle slice of a file as it is stored (Hounsfield units, magnitudes), and where it comes from, in words.

    Where it is larger than `image_shape`, its middle is cut to the proportions of that and averaged over areas to it;
    a smaller slice is taken as it is.

    Parameters
    ----------
    path
        DICOM, NIfTI, NRRD or .npy; blank slices do not count.
    image_shape
        (rows, columns).

    Raises
    ------
    ReaderError
        Not there, not readable, or without an image.
    """
    if not path.is_file():
        raise ReaderError(f"case.files: {path}", expected="an image file", got="none there", cure="check the path")
    slices = read_slices(path)
    number = len(slices) // 2
    values = slices[number]
    source = path.name + (f", slice {number + 1} of {len(slices)}" if len(slices) > 1 else "")
    ratio = min(n / wanted for n, wanted in zip(values.shape, image_shape, strict=True))
    if ratio <= 1:
        return values, source
    rows, columns = (round(ratio * wanted) for wanted in image_shape)
    top, left = (values.shape[0] - rows) // 2, (values.shape[1] - columns) // 2
    middle = values[top : top + rows, left : left + columns]
    averaged = interpolate(middle[None, None], size=image_shape, mode="area")[0, 0]
    return averaged, f"{source}, {rows} x {columns} pixels averaged to {image_shape[0]} x {image_shape[1]}"
