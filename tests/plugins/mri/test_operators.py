"""Cartesian MRI operators against the definition with NumPy's FFT, and against sigpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sigpy.mri
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from priorloom.errors import InputError
from priorloom.operator import LinearOperator
from priorloom_mri import operators
from priorloom_mri.operators import fftc, fourier2d, ifftc, sense2d

SHAPES = [(16, 12), (15, 12), (9, 7)]


def centred_fft(x: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, axes), norm="ortho"), axes)


def make(shape: tuple[int, int], coils: int, lines: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    maps = torch.randn(coils, *shape, dtype=torch.complex64, generator=generator)
    mask = torch.rand(shape[1] if lines else shape, generator=generator) < 0.4
    mask[..., shape[1] // 2] = True
    return maps, mask


def make_operator(kind: str, shape: tuple[int, int], generator: torch.Generator) -> LinearOperator:
    maps, mask = make(shape, 3, kind.endswith("lines"), generator)
    if kind == "sense-full":
        return sense2d(maps=maps)
    return sense2d(maps=maps, mask=mask) if kind.startswith("sense") else fourier2d(image_shape=shape, mask=mask)


KINDS = ["sense-points", "sense-lines", "sense-full", "fourier-points", "fourier-lines"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lines", [True, False])
def test_sense_is_its_definition(shape: tuple[int, int], lines: bool, generator: torch.Generator) -> None:
    maps, mask = make(shape, 3, lines, generator)
    A = sense2d(maps=maps, mask=mask)
    x = A.domain.random(generator)
    expected = centred_fft(maps.numpy() * x.numpy()) * mask.numpy()
    np.testing.assert_allclose(A(x).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_sense_agrees_with_sigpy(shape: tuple[int, int], generator: torch.Generator) -> None:
    maps, mask = make(shape, 4, False, generator)
    A = sense2d(maps=maps, mask=mask)
    S = sigpy.mri.linop.Sense(maps.numpy(), weights=mask.numpy().astype(np.float32))
    x, y = A.domain.random(generator), A.range.random(generator)
    np.testing.assert_allclose(A(x).numpy(), S(x.numpy()), atol=3e-6)
    np.testing.assert_allclose(A.adjoint(y).numpy(), S.H(y.numpy()), atol=3e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_fourier_is_its_definition(shape: tuple[int, int], generator: torch.Generator) -> None:
    _, mask = make(shape, 1, False, generator)
    A = fourier2d(image_shape=shape, mask=mask)
    x = A.domain.random(generator)
    np.testing.assert_allclose(A(x).numpy(), centred_fft(x.numpy()) * mask.numpy(), atol=2e-6)
    np.testing.assert_allclose(ifftc(fftc(x)).numpy(), x.numpy(), atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_dot_test_in_double(kind: str, shape: tuple[int, int], generator: torch.Generator) -> None:
    A = make_operator(kind, shape, generator).double()
    x, y = A.domain.random(generator, (2,)), A.range.random(generator, (2,))
    assert x.dtype == torch.complex128
    left, right = A.range.inner(y, A(x)), A.domain.inner(A.adjoint(y), x)
    scale = A.range.norm(A(x)) * A.range.norm(y)
    assert float(((left - right).abs() / scale).max()) < 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_to_second_order(kind: str, generator: torch.Generator) -> None:
    A = make_operator(kind, (4, 3), generator).double()
    x = A.domain.random(generator).requires_grad_()
    y = A.range.random(generator).requires_grad_()
    assert torch.autograd.gradcheck(A, (x,))
    assert torch.autograd.gradgradcheck(A, (x,))
    assert torch.autograd.gradcheck(A.adjoint, (y,))
    assert torch.autograd.gradcheck(A.normal, (x,))
    assert torch.autograd.gradcheck(A.pseudo_inverse, (y,))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_normal_is_the_pair(kind: str, shape: tuple[int, int], generator: torch.Generator) -> None:
    A = make_operator(kind, shape, generator).double()
    x = A.domain.random(generator, (2,))
    torch.testing.assert_close(A.normal(x), A.adjoint(A(x)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_elements_and_chunks_do_not_matter(
    kind: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    A = make_operator(kind, (9, 8), generator).double()
    x, y = A.domain.random(generator, (2, 3)), A.range.random(generator, (2, 3))
    for f, v in ((A, x), (A.normal, x), (A.adjoint, y), (A.pseudo_inverse, y)):
        together = f(v)
        singly = torch.stack([torch.stack([f(e) for e in row]) for row in v])
        torch.testing.assert_close(together, singly)
        for images in (1, 2, 4, 7):  # of 3 coils: within one image, and across the batch
            monkeypatch.setitem(operators.CHUNK_BYTES, "cpu", images * 9 * 8 * 16)
            torch.testing.assert_close(f(v), together)
        monkeypatch.undo()


def test_norms(generator: torch.Generator) -> None:
    A = make_operator("fourier-lines", (9, 8), generator)
    assert A.norm_bounds() == (1.0, 1.0)
    for kind in KINDS:
        A = make_operator(kind, (5, 4), generator).double()
        eye = torch.eye(A.domain.size, dtype=torch.complex128).reshape(-1, *A.domain.shape)
        largest = float(torch.linalg.matrix_norm(A(eye).flatten(1), 2))
        low, high = A.norm_bounds()
        assert low * (1 - 1e-6) <= largest <= high * (1 + 1e-6)


def test_solve_normal_inverts(generator: torch.Generator) -> None:
    A = make_operator("fourier-points", (9, 8), generator).double()
    b = A.domain.random(generator, (2,))
    for rho in (0.3, torch.tensor([0.1, 2.0], dtype=torch.float64).reshape(2, 1, 1)):
        x = A.solve_normal(b, rho)
        assert x is not None
        torch.testing.assert_close(A.normal(x) + rho * x, b)


def test_pseudo_inverse_of_full_sampling_is_exact(generator: torch.Generator) -> None:
    A = make_operator("sense-full", (9, 8), generator)
    x = A.domain.random(generator)
    torch.testing.assert_close(A.pseudo_inverse(A(x)), x, atol=1e-4, rtol=1e-4)


def test_pseudo_inverse_is_zero_without_coils() -> None:
    maps = torch.ones(2, 4, 4, dtype=torch.complex64)
    maps[:, :, 0] = 0
    image = sense2d(maps=maps).pseudo_inverse(torch.ones(2, 4, 4, dtype=torch.complex64))
    assert bool(image.isfinite().all())
    assert float(image[:, 0].abs().max()) == 0


def test_maps_and_mask_are_given_back_centred(generator: torch.Generator) -> None:
    for shape in SHAPES:
        maps, mask = make(shape, 2, True, generator)
        A = sense2d(maps=maps.numpy(), mask=mask.numpy())
        assert isinstance(A, operators.Sense)
        torch.testing.assert_close(A.maps, maps)
        assert torch.equal(A.mask, mask.expand(shape))


@pytest.mark.parametrize(
    "mask",
    [
        torch.zeros(4, 5, dtype=torch.bool),
        torch.ones(5, 4, dtype=torch.bool),
        torch.ones(4, dtype=torch.bool),
        torch.ones(1, 1, 4, 5, dtype=torch.bool),
        torch.ones(2, 4, 4, dtype=torch.bool),
        torch.zeros(0, 4, 5, dtype=torch.bool),
        torch.stack([torch.ones(4, 5), torch.zeros(4, 5)]).bool(),
        torch.full((4, 5), 0.5),
        torch.full((4, 5), torch.nan),
    ],
)
def test_bad_masks(mask: Tensor) -> None:
    with pytest.raises(InputError, match=r"^mask: expected"):
        fourier2d(image_shape=(4, 5), mask=mask)
    with pytest.raises(InputError, match=r"^mask: expected"):
        sense2d(maps=torch.ones(2, 4, 5, dtype=torch.complex64), mask=mask)


@pytest.mark.parametrize(
    "maps",
    [
        torch.ones(4, 5, dtype=torch.complex64),
        torch.zeros(2, 4, 5, dtype=torch.complex64),
        torch.full((2, 4, 5), torch.nan, dtype=torch.complex64),
        torch.ones(0, 4, 5, dtype=torch.complex64),
    ],
)
def test_bad_maps(maps: Tensor) -> None:
    with pytest.raises(InputError, match="maps of"):
        sense2d(maps=maps)
    with pytest.raises(InputError, match="image_shape"):
        fourier2d(image_shape=(0, 4))


class OnMeta(TorchDispatchMode):
    """No operation takes or gives a tensor elsewhere, single numbers apart."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves((args, kwargs, result)):
            assert not (isinstance(t, Tensor) and t.ndim) or t.device.type == "meta", f"{func} on {t.device}"
        return result


@pytest.mark.parametrize("chunk", [1, 4 << 20])
@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_operator_leaves_nothing_behind(
    kind: str, chunk: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device stands for any other one, so that this needs no GPU."""
    monkeypatch.setitem(operators.CHUNK_BYTES, "cpu", chunk)
    monkeypatch.setitem(operators.CHUNK_BYTES, "cuda", chunk)
    A = make_operator(kind, (9, 7), generator)
    x, y = A.domain.random(generator, (2,)), A.range.random(generator, (2,))

    def outputs(x: Tensor, y: Tensor) -> list[Tensor]:
        solved = A.solve_normal(x, 0.5)
        return [A(x), A.adjoint(y), A.normal(x), A.pseudo_inverse(y)] + ([] if solved is None else [solved])

    here = outputs(x, y)
    A.to("meta")
    x, y = x.to("meta"), y.to("meta")
    with OnMeta():
        there = outputs(x, y)
    assert [(t.shape, t.dtype, t.device.type) for t in there] == [(t.shape, t.dtype, "meta") for t in here]
