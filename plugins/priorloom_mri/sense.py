"""Multi-coil Cartesian MRI, ``y_c = M F sum_s S_sc x_s``, for any number of image axes, map sets and frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from priorloom.cost import Cost, Operation, fft_flops
from priorloom.errors import InputError
from priorloom.memory import require_memory
from priorloom.operator import LinearOperator
from priorloom.space import Space

from .cartesian import Array, image_factor, kspace_factor, sampling_mask

CHUNK_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}
"""Coil images that are transformed at once: on a CPU they should stay in the cache, a GPU wants to be filled."""

MAPS_FLOOR = 1e-3
"""Where ``sum |maps|^2`` is below this fraction of its maximum, the direct method does not divide by less."""

Chunk = tuple[slice, int, slice, slice]


class Sense(LinearOperator):
    """``y_fc = M_f F sum_s S_sc x_fs``, ``[..., (frames), (sets), *image] -> [..., (frames), coils, *image]``.

    Made by ``mri.sense2d`` and ``mri.sense3d``. No array is shifted: maps and mask hold the factors of
    :mod:`priorloom_mri.cartesian`. The work goes in chunks of coil images, at most two of which are in memory at a
    time, whatever the batch. A second forward FFT stands for the inverse one, ``F^-1 k = conj(F conj(k))``, so that no
    conjugate of the maps is needed; the normal operator takes the conjugate together with the mask, and transforms
    only the axes along which the mask varies, because the FFT along the others cancels.

    Parameters
    ----------
    maps
        Complex ``[sets, coils, *image]``.
    mask
        Bool ``[frames, *sizes]``, each size that of the image or 1.
    frames, sets
        The shapes that stand for frames and sets in one element: ``(n,)``, or ``()`` where there is one.
    """

    def __init__(self, maps: Tensor, mask: Tensor, frames: tuple[int, ...], sets: tuple[int, ...]) -> None:
        coils, image = maps.shape[1], tuple(maps.shape[2:])
        super().__init__(Space((*frames, *sets, *image), maps.dtype), Space((*frames, coils, *image), maps.dtype))
        self.frames, self.sets, self.image_shape = frames, sets, image
        self._axes = tuple(axis - len(image) for axis, size in enumerate(mask.shape[1:]) if size > 1)
        self.register_buffer("_maps", maps * image_factor(image, maps.dtype).to(maps.device))
        self.register_buffer("_mask", mask.to(maps.device))
        self.register_buffer("_weights", self._weighted(maps.dtype), persistent=False)
        power = torch.view_as_real(self._maps).square().sum((1, -1))
        self.register_buffer("_power", power.clamp_min(MAPS_FLOOR * float(power.max())))
        self._maps: Tensor
        self._mask: Tensor
        self._weights: Tensor
        self._power: Tensor
        self._norm_if_full = math.sqrt(_largest_gain(self._maps)) if bool(mask.all()) else None

    @property
    def maps(self) -> Tensor:
        """The coil maps, ``[(sets), coils, *image]``, centred."""
        maps = self._maps * image_factor(self.image_shape, self._maps.dtype).conj().to(self._maps.device)
        return maps if self.sets else maps[0]

    @property
    def mask(self) -> Tensor:
        """The sampling mask, bool ``[(frames), *image]``, centred."""
        mask = self._mask.expand(-1, *self.image_shape)
        return mask if self.frames else mask[0]

    @property
    def coils(self) -> int:
        """The number of coils."""
        return self._maps.shape[1]

    @property
    def image_space(self) -> Space:
        """One image of one set and one frame."""
        return Space(self.image_shape, self.domain.dtype)

    def combined(self, x: Tensor) -> Tensor:
        """The root sum of squares over the sets: with orthonormal maps, that of the coil images."""
        if not self.sets:
            return x
        axis = -len(self.image_shape) - 1
        power: Tensor = torch.view_as_real(x.resolve_conj()).square().sum((axis - 1, -1))
        return power.sqrt()

    def _weighted(self, dtype: torch.dtype) -> Tensor:
        factor: Tensor = kspace_factor(self.image_shape, dtype)
        return factor.to(self._mask.device) * self._mask

    # The factors are known to any precision: those of single precision must not limit double precision.
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LinearOperator:
        before = self._weights.dtype
        super()._apply(fn, recurse)
        if self._weights.dtype != before and not self._weights.is_meta:
            self._weights = self._weighted(self._weights.dtype)
        return self

    def _chunks(self, batch: int, rows_apart: bool = False) -> Iterator[Chunk]:
        """Batch elements, the frame, coils, and points of the first image axis (all, if these cannot stand apart)."""
        coils, first = self.coils, self.image_shape[0]
        budget = CHUNK_BYTES["cpu" if self._maps.device.type == "cpu" else "cuda"]
        image_bytes = math.prod(self.image_shape) * self._maps.element_size()
        images = max(1, budget // image_bytes)
        batch_step, coil_step = max(1, images // coils), min(images, coils)
        row_step = max(1, first * budget // image_bytes) if rows_apart else first
        for b in range(0, batch, batch_step):
            for f in range(len(self._mask)):
                for r in range(0, first, row_step):
                    for c in range(0, coils, coil_step):
                        yield slice(b, b + batch_step), f, slice(c, c + coil_step), slice(r, r + row_step)

    def _coil_images(self, x: Tensor, chunk: Chunk) -> Tensor:
        """``sum_s S_sc x_s`` of one chunk of ``[batch, frames, sets, *image]``: ``[batch, coils, *image]``."""
        b, f, c, r = chunk
        first, *others = self._maps[:, c, r]
        image, *more = x[b, f, :, r].unbind(1)
        result: Tensor = image[:, None] * first
        for image, maps in zip(more, others, strict=True):
            result.addcmul_(image[:, None], maps)
        return result

    def _combine(self, k: Tensor, chunk: Chunk, out: Tensor) -> None:
        """Adds ``sum_c S_sc k_c``, not conjugated, to one chunk of ``[batch, frames, sets, *image]``; `k` is lost."""
        b, f, c, r = chunk
        last = len(self._maps) - 1
        for s, maps in enumerate(self._maps[:, c, r]):
            out[b, f, s, r] += torch.mul(k, maps, out=k if s == last else None).sum(1)

    def cost(self, operation: Operation, batch: int) -> Cost:
        """The FFTs of all coil images, and for every pixel of them and every set a complex multiplication and addition.

        The normal operator transforms there and back, along the axes where the mask varies; its weights are real. The
        data move once, and maps and weights once for every chunk.
        """
        pixels = math.prod(self.image_shape)
        coil_images = batch * len(self._mask) * self.coils
        maps = 8.0 * len(self._maps) * pixels
        if operation == "normal":
            lengths = [self.image_shape[axis] for axis in self._axes]
            transforms = 2 * fft_flops(lengths) * pixels / math.prod(lengths) if lengths else 0.0
            flops = coil_images * (transforms + 2 * maps + 2 * pixels)
        else:
            flops = coil_images * (fft_flops(self.image_shape) + maps + 6 * pixels)
        images = self.domain.size + (self.domain.size if operation == "normal" else self.range.size)
        passes = len({chunk[0].start for chunk in self._chunks(batch)})
        return Cost(flops, float((batch * images + passes * self._maps.numel()) * self._maps.element_size()))

    def _images(self, x: Tensor) -> Tensor:
        return x.reshape(-1, len(self._mask), len(self._maps), *self.image_shape)

    def _forward(self, x: Tensor) -> Tensor:
        images = self._images(x)
        y = _empty((*self.domain.batch_shape(x), *self.range.shape), x)
        out = y.view(len(images), len(self._mask), *self._maps.shape[1:])
        axes = tuple(range(-len(self.image_shape), 0))
        for chunk in self._chunks(len(images)):
            b, f, c, _ = chunk
            k = self._coil_images(images, chunk)
            torch.mul(torch.fft.fftn(k, dim=axes), self._weights[f], out=out[b, f, c])
            del k  # before the next chunk takes its memory
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        kspace = y.reshape(-1, len(self._mask), *self._maps.shape[1:])
        x = y.new_zeros(*self.range.batch_shape(y), *self.domain.shape)
        out = self._images(x)
        axes = tuple(range(-len(self.image_shape), 0))
        for chunk in self._chunks(len(kspace)):
            b, f, c, _ = chunk
            k = torch.conj_physical(kspace[b, f, c]).mul_(self._weights[f])
            k = torch.fft.fftn(k, dim=axes)
            self._combine(k, chunk, out)
            del k
        return x.conj_physical_()

    def _normal(self, x: Tensor) -> Tensor:
        images = self._images(x)
        total = torch.zeros_like(images)
        gains = self._mask.to(x.real.dtype) / math.prod(self.image_shape[axis] for axis in self._axes)
        conjugated = torch.stack((gains, -gains), -1)
        first_apart = -len(self.image_shape) not in self._axes
        for chunk in self._chunks(len(images), first_apart):
            k = self._transform(self._coil_images(images, chunk))
            torch.view_as_real(k).mul_(conjugated[chunk[1]])
            k = self._transform(k)
            self._combine(k, chunk, total)
            del k
        return total.conj_physical_().reshape(x.shape)

    def _transform(self, k: Tensor) -> Tensor:
        return torch.fft.fftn(k, dim=self._axes) if self._axes else k

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        power = self._power if self.sets else self._power[0]
        return self.adjoint(y) / power

    def _norm(self) -> float | None:
        return self._norm_if_full


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Memory for a result. On a CPU it is NumPy's, which asks the kernel for huge pages: the first touch of a large
    array from torch costs as much as an FFT."""
    if like.device.type != "cpu":
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, np.complex64 if like.dtype == torch.complex64 else np.complex128))


def _largest_gain(maps: Tensor) -> float:
    """The largest eigenvalue of ``sum_c conj(S_sc) S_tc`` over all pixels."""
    flat = maps.flatten(2)
    if len(flat) == 1:
        return float(torch.view_as_real(flat[0]).square().sum((0, -1)).max())
    gram = torch.einsum("scp,tcp->pst", flat.conj(), flat)
    return float(torch.linalg.eigvalsh(gram).amax())


def sense(name: str, axes: tuple[str, ...], maps: Tensor | Array, mask: Tensor | Array | None) -> Sense:
    """The operator of that `name` from what a user gives; `axes` are the names of the image's.

    Raises
    ------
    InputError
        For maps of the wrong number of axes, more sets than coils, maps that are not finite or zero, a mask that does
        not fit or samples nothing, and sizes beyond the memory.
    """
    given = torch.as_tensor(maps)
    ndim = len(axes)
    described = f"[coils, {', '.join(axes)}]"
    if given.ndim not in (ndim + 1, ndim + 2) or 0 in given.shape:
        expected = f"shape {described} or [sets, {described[1:]}"
        raise InputError(f"maps of {name}", expected=expected, got=list(given.shape))
    sets = tuple(given.shape[: given.ndim - ndim - 1])
    coils, image = given.shape[-ndim - 1], tuple(given.shape[-ndim:])
    if sets and sets[0] > coils:
        raise InputError(
            f"maps of {name}", expected=f"at most as many sets as coils ({coils})", got=f"{sets[0]} sets",
            cure=f"the order of the axes is [sets, {described[1:]}",
        )  # fmt: skip
    samples, frames = sampling_mask(mask, image)
    frame_count, set_count, pixels = len(samples), math.prod(sets), math.prod(image)
    # The maps, the weights of the mask, two measurements, and four images for an iteration.
    values = pixels * (set_count * coils + frame_count * (1 + 2 * coils + 4 * set_count))
    cure = "compress the coils (priorloom_mri.compression), take fewer frames at a time"
    if ndim == 3:
        cure += ", or transform a fully sampled axis once and reconstruct slice by slice"
    require_memory(f"{name} with {coils} coils of {' x '.join(map(str, image))}", 8 * values, cure)
    given = given.to(torch.complex64)
    if not bool(torch.view_as_real(given).isfinite().all()) or not bool(given.any()):
        raise InputError(f"maps of {name}", expected="finite values, not all zero", got="NaN, infinite or all zero")
    return Sense(given.reshape(-1, coils, *image), samples, frames, sets)
