"""SENSE with several map sets, frames and three dimensions against dense matrices and sums written out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sigpy
import sigpy.mri
import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.testing import check_operator
from priorloom_mri import operators
from priorloom_mri.operators import Fourier, Sense, fourier2d, fourier3d, sense2d, sense3d

KINDS = ["sets", "frames", "frames-sets", "volume", "volume-full-mask", "volume-sets-frames", "volume-rows"]


def centred_dft(n: int) -> np.ndarray:
    j = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(j, j) / n) / math.sqrt(n)


def given(kind: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    image = (3, 5, 4) if kind.startswith("volume") else (6, 5)
    sets = (2,) if "sets" in kind else ()
    frames = (3,) if "frames" in kind else ()
    maps = torch.randn(*sets, 3, *image, dtype=torch.complex64, generator=generator)
    sizes = {"volume": (5, 4), "volume-rows": (5, 1)}.get(kind, image)
    mask = torch.rand(*frames, *sizes, generator=generator) < 0.5
    mask[..., sizes[-2] // 2, sizes[-1] // 2] = True
    return maps, mask


def make(kind: str, generator: torch.Generator) -> Sense:
    maps, mask = given(kind, generator)
    return make_from(kind, maps, mask)


def make_from(kind: str, maps: Tensor, mask: Tensor) -> Sense:
    A = (sense3d if kind.startswith("volume") else sense2d)(maps=maps, mask=mask)
    assert isinstance(A, Sense)
    return A


def definition(maps: Tensor, mask: Tensor, x: np.ndarray, frames: bool, sets: bool) -> np.ndarray:
    """Every frame, coil and set in turn, with the Fourier matrix of every axis."""
    S = maps.numpy() if sets else maps.numpy()[None]
    image = S.shape[2:]
    masks = np.broadcast_to(mask.numpy(), (*mask.shape[:1], *image) if frames else image)
    pictures = x if frames else x[None]
    out = []
    for t, picture in enumerate(pictures):
        coils = []
        for c in range(S.shape[1]):
            k = sum(S[s, c] * (picture[s] if sets else picture) for s in range(len(S)))
            for axis, n in enumerate(image):
                k = np.moveaxis(np.tensordot(centred_dft(n), k, (1, axis)), 0, axis)
            coils.append(k * (masks[t] if frames else masks))
        out.append(np.stack(coils))
    return np.stack(out) if frames else out[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_definition(kind: str, generator: torch.Generator) -> None:
    maps, mask = given(kind, generator)
    A = (sense3d if kind.startswith("volume") else sense2d)(maps=maps, mask=mask)
    x = A.domain.random(generator)
    expected = definition(maps, mask, x.numpy(), "frames" in kind, "sets" in kind)
    assert A.range.shape == expected.shape
    np.testing.assert_allclose(A(x).numpy(), expected, atol=5e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 700, 2 << 20])
def test_adjoint_and_normal_are_those_of_the_matrix(
    kind: str, chunk: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(operators.CHUNK_BYTES, "cpu", chunk)
    A = make(kind, generator).double()
    eye = torch.eye(A.domain.size, dtype=torch.complex128).reshape(-1, *A.domain.shape)
    M = A(eye).flatten(1).T
    x, y = A.domain.random(generator, (2,)), A.range.random(generator, (2,))
    torch.testing.assert_close(A.adjoint(y).flatten(1), y.flatten(1) @ M.conj(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(A.normal(x).flatten(1), x.flatten(1) @ (M.mH @ M).T, rtol=1e-12, atol=1e-12)
    low, high = A.norm_bounds()
    assert low * (1 - 1e-6) <= float(torch.linalg.matrix_norm(M, 2)) <= high * (1 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kit(kind: str, generator: torch.Generator) -> None:
    check_operator(make(kind, generator))
    check_operator(make(kind, generator).double())


def test_fourier_of_volumes_and_frames_passes_the_kit(generator: torch.Generator) -> None:
    mask = torch.rand(3, 6, 5, generator=generator) < 0.5
    for A in (fourier2d(image_shape=(6, 5), mask=mask), fourier3d(image_shape=(3, 6, 5), mask=mask)):
        assert A.domain.shape == (3, 6, 5)
        check_operator(A)
        check_operator(A.double())
        x = A.domain.random(generator)
        assert isinstance(A, Fourier)
        axes = (1, 2) if A.frames else (0, 1, 2)
        expected = sigpy.fft(x.numpy(), axes=axes) * mask.numpy()
        np.testing.assert_allclose(A(x).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 10, 6), (5, 7, 4)])
def test_volumes_agree_with_sigpy(shape: tuple[int, ...], generator: torch.Generator) -> None:
    maps = torch.randn(4, *shape, dtype=torch.complex64, generator=generator)
    mask = torch.rand(shape[1:], generator=generator) < 0.4
    A = sense3d(maps=maps, mask=mask)
    weights = np.broadcast_to(mask.numpy(), shape).astype(np.float32)
    S = sigpy.mri.linop.Sense(maps.numpy(), weights=weights)
    x, y = A.domain.random(generator), A.range.random(generator)
    np.testing.assert_allclose(A(x).numpy(), S(x.numpy()), atol=5e-6)
    np.testing.assert_allclose(A.adjoint(y).numpy(), S.H(y.numpy()), atol=5e-6)


def test_a_frame_is_the_operator_of_its_mask(generator: torch.Generator) -> None:
    maps, mask = given("frames", generator)
    A = sense2d(maps=maps, mask=mask)
    x, y = A.domain.random(generator, (2,)), A.range.random(generator, (2,))
    for t in range(3):
        B = sense2d(maps=maps, mask=mask[t])
        torch.testing.assert_close(A(x)[:, t], B(x[:, t]))
        torch.testing.assert_close(A.pseudo_inverse(y)[:, t], B.pseudo_inverse(y[:, t]))


def test_maps_and_mask_are_given_back(generator: torch.Generator) -> None:
    for kind in KINDS:
        maps, mask = given(kind, generator)
        A = make_from(kind, maps, mask)
        torch.testing.assert_close(A.maps, maps)
        assert torch.equal(A.mask, mask.expand(*A.frames, *A.image_shape))


def test_full_sampling_of_several_sets_has_an_exact_norm_and_inverse(generator: torch.Generator) -> None:
    basis, _ = torch.linalg.qr(torch.randn(6, 5, 4, 2, dtype=torch.complex64, generator=generator))
    maps = basis.permute(3, 2, 0, 1)  # orthonormal at every pixel, as ESPIRiT's
    A = sense2d(maps=maps)
    assert A.norm_bounds() == (A.norm(), A.norm())
    assert A.norm() == pytest.approx(1, rel=1e-5)
    x = A.domain.random(generator)
    torch.testing.assert_close(A.pseudo_inverse(A(x)), x, atol=1e-4, rtol=1e-4)


def test_derivatives_of_the_normal_operator(generator: torch.Generator) -> None:
    for kind in ("frames-sets", "volume"):
        A = make(kind, generator).double()
        x = A.domain.random(generator).requires_grad_()
        assert torch.autograd.gradcheck(A.normal, (x,), fast_mode=True)
        assert torch.autograd.gradgradcheck(A.normal, (x,), fast_mode=True)


def extra_bytes(call: Callable[[], Tensor], trace: Path) -> int:
    """The most that torch held during `call` beyond what it held before and the result."""
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    profile.export_chrome_trace(str(trace))
    events: list[dict[str, Any]] = json.loads(trace.read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    peak = int(np.cumsum([0, *(change for _, change in changes)]).max())
    return peak - result.nbytes if peak >= result.nbytes else peak  # of a result in NumPy's memory torch knows nothing


@pytest.mark.parametrize("lines", [True, False])
def test_memory_does_not_grow_with_the_batch(
    lines: bool, generator: torch.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(operators.CHUNK_BYTES, "cpu", 8 * 64 * 64 * 8)
    mask = torch.rand((64,) if lines else (64, 64), generator=generator) < 0.4
    A = sense2d(maps=torch.randn(8, 64, 64, dtype=torch.complex64, generator=generator), mask=mask)
    x = A.domain.random(generator, (32,))
    y = A(x)
    for call in (lambda: A(x), lambda: A.adjoint(y), lambda: A.normal(x)):
        extra = extra_bytes(call, tmp_path / "trace.json")
        assert 0 < extra < 3 * 8 * 64 * 64 * 8


def test_too_many_sets() -> None:
    with pytest.raises(InputError, match="at most as many sets as coils"):
        sense2d(maps=torch.ones(4, 2, 5, 5, dtype=torch.complex64))


def test_wrong_axes() -> None:
    with pytest.raises(InputError, match=r"maps of mri.sense3d: expected shape \[coils, slices, rows, columns\]"):
        sense3d(maps=torch.ones(4, 5, 5, dtype=torch.complex64))
    with pytest.raises(InputError, match="mask: expected"):
        sense3d(maps=torch.ones(2, 4, 5, 5, dtype=torch.complex64), mask=torch.ones(4, 5))
    with pytest.raises(InputError, match="in frame 1"):
        sense2d(maps=torch.ones(2, 4, 5, dtype=torch.complex64), mask=torch.tensor([[[1]], [[0]]]))


def test_what_exceeds_the_memory_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "1")
    maps = torch.ones((), dtype=torch.complex64).expand(32, 256, 256, 256)
    with pytest.raises(InputError, match=r"memory of mri.sense3d .* at most 1 GiB, got about .* GiB; compress"):
        sense3d(maps=maps)
    with pytest.raises(InputError, match=r"memory of mri.fourier3d"):
        fourier3d(image_shape=(512, 512, 512))
