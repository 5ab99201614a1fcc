"""Non-Cartesian MRI: ``y_c(k) = 1 / sqrt(N) sum_r S_c(r) x(r) exp(-2 pi i k . r)`` at any points k.

N is the number of pixels, r the pixel index from the centre (index ``n // 2``) and k in cycles per pixel: on a
Cartesian trajectory this is the centred orthonormal FFT of ``mri.sense2d``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from priorloom.cost import Cost, Operation, fft_flops
from priorloom.errors import InputError
from priorloom.hooks import example
from priorloom.memory import require_memory
from priorloom.operator import LinearOperator
from priorloom.space import Space

from . import trajectories
from .density import pipe_menon, ramp, scaled
from .nonuniform import TOLERANCE, UPSAMPLING, NonuniformFFT
from .operators import MAPS_FLOOR
from .toeplitz import ToeplitzNormal, chunks, transfer
from .trajectories import Ordering

Array = np.ndarray[Any, Any]
Compensation = Literal["ramp", "pipe-menon"]

EDGE = 0.5 * (1 + 1e-6)
"""The largest component of k, with room for the rounding of single precision."""

MARGIN = 1.25
"""Turns of a spiral over those that Nyquist asks for: at the limit itself the alias of an object touches it."""

T = TypeVar("T")


class _Derived:
    """What is made of the trajectory for one device and precision: dropped by a move, and never copied or pickled."""

    def __init__(self) -> None:
        self._of: tuple[torch.device, torch.dtype] | None = None
        self._made: dict[str, Any] = {}
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Derived, ()

    def get(self, name: str, device: torch.device, dtype: torch.dtype, make: Callable[[], T]) -> T:
        with self._lock:
            if self._of != (device, dtype):
                self._of, self._made = (device, dtype), {}
            if name not in self._made:
                self._made[name] = make()
            made: T = self._made[name]
            return made


class NonCartesian(LinearOperator):
    """``[..., *image_shape]`` -> ``[..., coils, *samples]``, without the coil axis where there are no maps.

    Made by :func:`nufft` and its like. The pair is FINUFFT's; the normal operator is a convolution by FFT
    (``toeplitz.ToeplitzNormal``) that equals the pair to its tolerance. Plans, transfer functions and density weights
    are made when first used.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        trajectory: Tensor,
        maps: Tensor | None,
        compensation: Compensation | Tensor = "pipe-menon",
    ) -> None:
        samples, coils = tuple(trajectory.shape[:-1]), () if maps is None else (len(maps),)
        super().__init__(Space(image_shape, torch.complex64), Space((*coils, *samples), torch.complex64))
        # As integers the bits survive .float(): rounding k would turn phases at the edge of the image.
        self.register_buffer("_trajectory_bits", trajectory.to(torch.float64).contiguous().view(torch.int64))
        self.register_buffer("maps", maps)
        self.register_buffer("_given_density", compensation if isinstance(compensation, Tensor) else None)
        self._trajectory_bits: Tensor
        self.maps: Tensor | None
        self._given_density: Tensor | None
        self._rule = compensation if isinstance(compensation, str) else None
        self._derived = _Derived()

    @property
    def trajectory(self) -> Tensor:
        """k in cycles per pixel, float64 ``[*samples, axes]``."""
        return self._trajectory_bits.view(torch.float64)

    @property
    def density(self) -> Tensor:
        """Weights of the direct method, real ``[*samples]``: how many Cartesian samples each sample stands for."""
        return self._derive("density", self._density)

    @property
    def toeplitz(self) -> ToeplitzNormal:
        """The normal operator as a convolution."""
        return self._derive("toeplitz", self._toeplitz)

    def _derive(self, name: str, make: Callable[[], T]) -> T:
        with torch.no_grad():
            return self._derived.get(name, self.device, self.domain.dtype, make)

    def _transform(self) -> NonuniformFFT:
        return self._derive("transform", lambda: self._plan(self.domain.dtype))

    def _plan(self, dtype: torch.dtype) -> NonuniformFFT:
        return NonuniformFFT(self.domain.shape, self.trajectory.flatten(0, -2), dtype)

    def _toeplitz(self) -> ToeplitzNormal:
        kernel = transfer(self._plan(torch.complex128))
        return ToeplitzNormal(kernel.to(self.domain.real_dtype), self.maps)

    def _density(self) -> Tensor:
        shape = self.domain.shape
        if self._given_density is not None:
            return scaled(self._given_density, self._transform())
        weights = (ramp if self._rule == "ramp" else pipe_menon)(self.trajectory, shape)
        return weights.to(self.domain.real_dtype)

    def cost(self, operation: Operation, batch: int) -> Cost:
        """FFTs and what lies between them and the samples.

        The pair: an FFT of the upsampled grid for every coil, and at every sample a kernel of width ``w = ceil(-log10
        tolerance) + 1`` along each axis (Barnett, Magland and af Klinteberg, SIAM J. Sci. Comput. 41, 2019), a
        multiplication and an addition with a real weight. The normal operator: four FFTs of the image there and back
        (eight in 3D). Maps are one complex multiplication and addition each; data move once.
        """
        shape, axes, coils = self.domain.shape, self.domain.ndim, self.coils
        weighted = 0.0 if self.maps is None else 8.0 * coils * self.domain.size
        values = self.domain.size + (self.domain.size if operation == "normal" else self.range.size)
        if operation == "normal":
            kernels = 2**axes
            flops = kernels * (2 * coils * fft_flops(shape) + 2 * coils * self.domain.size + 2 * weighted)
        else:
            width = math.ceil(-math.log10(TOLERANCE[self.domain.dtype])) + 1
            grid = fft_flops(math.ceil(UPSAMPLING * n) for n in shape)
            flops = coils * (grid + 4.0 * self._samples * width**axes) + weighted
        stored = 0 if self.maps is None else self.maps.numel()
        return Cost(batch * flops, float((batch * values + stored) * self.domain.dtype.itemsize))

    def _forward(self, x: Tensor) -> Tensor:
        images = x.reshape(-1, 1, *self.domain.shape) / math.sqrt(self.domain.size)
        y = images.new_empty(len(images), self.coils, self._samples)
        for b, c in chunks(len(images), self.coils, self.domain, images.device, torch.get_num_threads()):
            coil_images = images[b] if self.maps is None else images[b] * self.maps[c]
            y[b, c] = self._transform().forward(coil_images.flatten(0, 1)).reshape(y[b, c].shape)
        return y.reshape(*self.domain.batch_shape(x), *self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        samples = y.reshape(-1, self.coils, self._samples)
        images = samples.new_zeros(len(samples), *self.domain.shape)
        for b, c in chunks(len(samples), self.coils, self.domain, samples.device, torch.get_num_threads()):
            part = samples[b, c]
            z = self._transform().adjoint(part.flatten(0, 1)).reshape(*part.shape[:2], *self.domain.shape)
            images[b] += z[:, 0] if self.maps is None else torch.linalg.vecdot(self.maps[c], z, dim=1)
        images /= math.sqrt(self.domain.size)
        return images.reshape(*self.range.batch_shape(y), *self.domain.shape)

    def _normal(self, x: Tensor) -> Tensor:
        return self.toeplitz._forward(x)

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        image = self.adjoint(y * self.density)
        if self.maps is None:
            return image
        power = self.maps.abs().square().sum(0)
        return image / power.clamp_min(MAPS_FLOOR * float(power.max()))

    @property
    def coils(self) -> int:
        """The number of coils."""
        return 1 if self.maps is None else len(self.maps)

    @property
    def _samples(self) -> int:
        return self._trajectory_bits[..., 0].numel()

    def extra_repr(self) -> str:
        """Sizes."""
        return f"image {self.domain.shape}, samples {tuple(self.trajectory.shape[:-1])}, {self.coils} coil(s)"


def _example_trajectory() -> Tensor:
    return torch.rand(7, 11, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5


def _example_maps() -> Tensor:
    return torch.randn(3, 12, 9, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


@example(image_shape=(12, 9), trajectory=_example_trajectory, maps=_example_maps)
def nufft(
    *,
    image_shape: tuple[int, ...],
    trajectory: Tensor | Array,
    maps: Tensor | Array | None = None,
    density: Compensation | Tensor | Array = "pipe-menon",
) -> NonCartesian:
    """Non-Cartesian MRI in 2D or 3D, ``y_c(k) = 1 / sqrt(N) sum_r S_c(r) x(r) exp(-2 pi i k . r)``.

    Computes in complex64 (complex128 after ``.double()``). The direct method is the density-compensated, coil-combined
    image ``A^H W y / sum_c |S_c|^2``.

    Parameters
    ----------
    image_shape
        (rows, columns), or the sizes of three axes.
    trajectory
        The points k in cycles per pixel, ``[..., axes]`` with components in [-0.5, 0.5] in the order of the image's
        axes; the leading axes (spokes, readout) become those of the measurement.
    maps
        Coil sensitivities S, complex ``[coils, *image_shape]``; one uniform coil when absent.
    density
        How the direct method weights the samples: "pipe-menon" (any trajectory), "ramp" (straight spokes through the
        centre, trajectory ``[spokes, readout, axes]``), or weights ``[...]`` in any unit.

    Raises
    ------
    InputError
        For a trajectory of another shape, outside of [-0.5, 0.5] or not finite, maps or weights that do not fit, or
        sizes beyond the memory budget.

    References
    ----------
    Barnett, Magland and af Klinteberg. A parallel nonuniform fast Fourier transform library based on an "exponential of
    semicircle" kernel. SIAM Journal on Scientific Computing 41, 2019.
    """
    if len(image_shape) not in (2, 3) or min(image_shape) < 1:
        raise InputError("image_shape of mri.nufft", expected="two or three positive sizes", got=image_shape)
    k = _checked_trajectory(trajectory, len(image_shape))
    coils = None if maps is None else _checked_maps(maps, image_shape)
    _check_memory(
        image_shape,
        k[..., 0].numel(),
        1 if coils is None else len(coils),
        isinstance(density, str) and density == "pipe-menon",
    )
    if isinstance(density, str):
        return NonCartesian(image_shape, k, coils, density)
    return NonCartesian(image_shape, k, coils, _checked_weights(density, k.shape[:-1]))


@example(spokes=5, readout=16, maps=_example_maps)
def radial2d(
    *,
    image_shape: tuple[int, int] | None = None,
    spokes: int,
    readout: int | None = None,
    ordering: Ordering = "uniform",
    maps: Tensor | Array | None = None,
    density: Compensation = "ramp",
) -> NonCartesian:
    """:func:`nufft` on straight spokes through the centre, ``[..., coils, spokes, readout]``.

    Parameters
    ----------
    image_shape
        (rows, columns); that of the maps when absent.
    spokes
        Their number. Nyquist at the edge of k-space needs ``pi / 2`` per pixel of an axis.
    readout
        Samples of a spoke; twice the longer image axis when absent.
    ordering
        "uniform" angles over the half circle, or steps of the "golden" angle.
    maps
        Coil sensitivities, complex ``[coils, rows, columns]``; one uniform coil when absent.
    density
        "ramp" or "pipe-menon".
    """
    shape = _image_shape(image_shape, maps, "mri.radial2d")
    points = trajectories.radial(spokes, 2 * max(shape) if readout is None else readout, ordering)
    return nufft(image_shape=shape, trajectory=points, maps=maps, density=density)


@example(interleaves=3, readout=40, maps=_example_maps)
def spiral2d(
    *,
    image_shape: tuple[int, int] | None = None,
    interleaves: int,
    readout: int | None = None,
    turns: float | None = None,
    maps: Tensor | Array | None = None,
    density: Literal["pipe-menon"] = "pipe-menon",
) -> NonCartesian:
    """:func:`nufft` on interleaved Archimedean spirals, ``[..., coils, interleaves, readout]``.

    Parameters
    ----------
    image_shape
        (rows, columns); that of the maps when absent.
    interleaves
        Number of spirals, rotated evenly.
    readout
        Samples of a spiral; as many as lie at half the Nyquist distance along it when absent.
    turns
        Of each spiral; as many as bring neighbouring turns to 1 / 1.25 of the Nyquist distance when absent.
    maps
        Coil sensitivities, complex ``[coils, rows, columns]``; one uniform coil when absent.
    density
        "pipe-menon".
    """
    shape = _image_shape(image_shape, maps, "mri.spiral2d")
    if interleaves < 1:
        raise InputError("interleaves of mri.spiral2d", expected="a positive number", got=interleaves)
    winding = MARGIN * 0.5 * max(shape) / interleaves if turns is None else turns
    if not 0 < winding < math.inf:
        raise InputError("turns of mri.spiral2d", expected="a positive number", got=turns)
    if readout is None:
        readout = math.ceil(2 * max(shape) * float(trajectories.arc_length(1.0, max(winding, 1e-3))))
    points = trajectories.spiral(interleaves, readout, winding)
    return nufft(image_shape=shape, trajectory=points, maps=maps, density=density)


def _image_shape(given: tuple[int, int] | None, maps: Tensor | Array | None, name: str) -> tuple[int, int]:
    if given is None and (maps is None or maps.ndim != 3):
        raise InputError(f"{name} needs parameter 'image_shape'", expected="(rows, columns)", got="neither it nor maps")
    rows, columns = given if given is not None else (int(n) for n in maps.shape[1:])  # type: ignore[union-attr]
    if min(rows, columns) < 1:
        raise InputError(f"image_shape of {name}", expected="positive sizes", got=(rows, columns))
    return rows, columns


def _checked_trajectory(trajectory: Tensor | Array, axes: int) -> Tensor:
    given = torch.as_tensor(trajectory)
    if given.ndim < 2 or given.shape[-1] != axes or given.numel() == 0 or given.is_complex():
        raise InputError(
            "trajectory of mri.nufft", expected=f"real numbers [..., {axes}] for an image of {axes} axes",
            got=f"{'complex ' if given.is_complex() else ''}{list(given.shape)}",
        )  # fmt: skip
    k = given.to(torch.float64)
    largest = float(k.abs().max())  # NaN where there is one
    if not math.isfinite(largest):
        raise InputError("trajectory of mri.nufft", expected="finite values", got="NaN or infinite")
    if largest > EDGE:
        raise InputError(
            "trajectory of mri.nufft", expected="components in [-0.5, 0.5] cycles per pixel",
            got=f"up to {largest:.4g}",
            cure="divide radians per pixel by 2 pi, or cycles per field of view by the number of pixels",
        )  # fmt: skip
    return k


def _checked_maps(maps: Tensor | Array, image_shape: tuple[int, ...]) -> Tensor:
    given = torch.as_tensor(maps)
    if given.ndim != len(image_shape) + 1 or tuple(given.shape[1:]) != tuple(image_shape) or not len(given):
        expected = f"shape [coils, {', '.join(map(str, image_shape))}]"
        raise InputError("maps of mri.nufft", expected=expected, got=list(given.shape))
    if not bool(given.isfinite().all()) or not bool((given != 0).any()):
        raise InputError("maps of mri.nufft", expected="finite values, not all zero", got="NaN, infinite or all zero")
    return given.to(torch.complex64)


def _checked_weights(density: Tensor | Array, samples: torch.Size) -> Tensor:
    given = torch.as_tensor(density)
    wrong = None
    if given.shape != samples or given.is_complex():
        wrong = f"{'complex, ' if given.is_complex() else ''}shape {list(given.shape)}"
    elif not bool((given.to(torch.float32).isfinite() & (given >= 0)).all()):
        wrong = "negative or not finite values"
    if wrong is not None:
        expected = f"real, finite, nonnegative, shape {list(samples)}"
        raise InputError("density weights of mri.nufft", expected=expected, got=wrong)
    return given.to(torch.float32)


def _check_memory(image_shape: tuple[int, ...], samples: int, coils: int, has_fixed_point: bool) -> None:
    """Maps, data in and out, the plans' grids, and what is largest for a while: the transfer functions with their
    double-precision parts, or Pipe and Menon's images of twice the size."""
    pixels, axes = math.prod(image_shape), len(image_shape)
    grid = math.ceil(UPSAMPLING**axes * pixels)
    kernel = (8 + 16 + 16 + 8) * 2**axes * pixels + 16 * grid
    fixed_point = (8 * grid + 56 * pixels) * 2**axes + 40 * samples if has_fixed_point else 0
    data = 8 * coils * (pixels + 2 * samples) + 16 * axes * samples
    needed = data + 8 * torch.get_num_threads() * grid + max(kernel, fixed_point)
    sizes = f"mri.nufft with {pixels} pixels, {samples} samples and {coils} coils"
    require_memory(sizes, needed, "use fewer of them (coil compression)")
