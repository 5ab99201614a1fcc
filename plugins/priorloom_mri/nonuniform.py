"""The nonuniform FFT between an image and points in k-space: plans of FINUFFT, reused from call to call.

``y_j = sum_r x(r) exp(-2 pi i k_j . r)`` with r the pixel index from the centre (index ``n // 2`` of an axis of n
pixels) and k in cycles per pixel; nothing is normalised here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priorloom.errors import PluginError

TOLERANCE = {torch.complex64: 1e-6, torch.complex128: 1e-12}
"""Relative error asked of FINUFFT. In single precision the rounding of k, 1e-8 cycles per pixel, weighs more."""

UPSAMPLING = 1.75
"""FINUFFT's grid over the image, per axis. Its default 2 is as accurate, and makes grids of 512 x 512 whose rows fall
on the same cache lines: four times slower (docs/non-cartesian.md)."""

_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}
_LOCK = threading.Lock()


def library(module: str) -> Any:
    """finufft or pytorch_finufft, imported when first used.

    Raises
    ------
    PluginError
        When the package is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:  # pytorch_finufft without finufft raises it by hand
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        package = module.partition(".")[0].replace("_", "-")
        raise PluginError(
            f"non-Cartesian MRI needs the package {package}", cure="install it with pip install priorloom[mri]"
        ) from None


class NonuniformFFT:
    """The transform of images of one shape to fixed points, and its adjoint, in the precision of `dtype`.

    On the CPU every transform runs in one thread, and as many transforms at a time as torch has threads: several
    threads that spread samples onto one grid would add in an order that changes from call to call. A plan has a
    workspace, so each thread takes one that is free, or makes one. The adjoint runs the plan backwards: the pair is
    adjoint to rounding whatever the tolerance. On CUDA, cufinufft computes through pytorch-finufft, and the pair is
    adjoint to the tolerance.

    Parameters
    ----------
    image_shape
        Sizes of the two or three image axes.
    points
        k in cycles per pixel, float64 ``[samples, axes]``, on the device that computes.
    dtype
        complex64 or complex128.
    """

    def __init__(self, image_shape: tuple[int, ...], points: Tensor, dtype: torch.dtype) -> None:
        self.image_shape, self.points, self.dtype = image_shape, points, dtype
        self._radians = (2 * torch.pi * points.T).to(dtype.to_real()).contiguous()
        self._free: list[Any] = []

    # Plans are made again where they are needed.
    def __reduce__(self) -> tuple[Any, ...]:
        return NonuniformFFT, (self.image_shape, self.points, self.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """``[transforms, *image_shape]`` to ``[transforms, samples]``."""
        if images.is_cuda:
            return self._forward_torch(images)
        samples = images.new_empty(len(images), len(self.points))
        self._execute("execute", images, samples)
        return samples

    def adjoint(self, samples: Tensor) -> Tensor:
        """``[transforms, samples]`` to ``[transforms, *image_shape]``."""
        if samples.is_cuda:
            return self._adjoint_torch(samples)
        images = samples.new_empty(len(samples), *self.image_shape)
        self._execute("execute_adjoint", samples, images)
        return images

    def _execute(self, what: str, given: Tensor, result: Tensor) -> None:
        source, target = given.resolve_conj().resolve_neg().contiguous().numpy(), result.numpy()

        def one(index: int) -> None:
            try:
                plan = self._free.pop()
            except IndexError:
                plan = self._plan()
            getattr(plan, what)(source[index], target[index])
            self._free.append(plan)

        _spread(one, len(source))

    def _plan(self) -> Any:
        name = "complex64" if self.dtype == torch.complex64 else "complex128"
        plan = library("finufft").Plan(
            2, self.image_shape, 1, TOLERANCE[self.dtype], -1, name, nthreads=1, upsampfac=UPSAMPLING, showwarn=0
        )
        plan.setpts(*(np.ascontiguousarray(axis) for axis in self._radians.numpy()))
        return plan

    # These two also compute on the CPU, where the tests hold them against the definition.

    def _forward_torch(self, images: Tensor) -> Tensor:
        torch_finufft = library("pytorch_finufft.functional")
        y: Tensor = torch_finufft.finufft_type2(self._radians, images, isign=-1, modeord=0, eps=TOLERANCE[self.dtype])
        return y

    def _adjoint_torch(self, samples: Tensor) -> Tensor:
        torch_finufft = library("pytorch_finufft.functional")
        x: Tensor = torch_finufft.finufft_type1(
            self._radians, samples, self.image_shape, isign=1, modeord=0, eps=TOLERANCE[self.dtype]
        )
        return x


def _spread(work: Callable[[int], None], count: int) -> None:
    """``work(i)`` for every i below `count`, at the same time on as many threads as torch has."""
    threads = torch.get_num_threads()
    if min(threads, count) == 1:
        for index in range(count):
            work(index)
        return
    key = os.getpid(), threads  # a forked process inherits the pool without its threads
    with _LOCK:
        if key not in _POOLS:
            _POOLS[key] = ThreadPoolExecutor(threads, thread_name_prefix="priorloom-mri")
        pool = _POOLS[key]
    for done in pool.map(work, range(count)):
        assert done is None
