"""Space: shapes, dtypes, and the Euclidean geometry of one element."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from priorloom import Space
from priorloom.errors import InputError


@pytest.mark.parametrize("shape", [(0,), (3, -1)])
def test_refuses_empty_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="shape of a space"):
        Space(shape)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_refuses_dtypes_without_geometry(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match="dtype of a space"):
        Space((3,), dtype)


def test_properties() -> None:
    space = Space((3, 4), torch.complex64)
    assert (space.ndim, space.size, space.is_complex, space.real_dtype) == (2, 12, True, torch.float32)
    assert space.dims == (-2, -1)
    assert space.with_dtype(torch.complex128) == Space((3, 4), torch.complex128)
    assert space.batch_shape(torch.zeros(5, 2, 3, 4)) == (5, 2)
    assert {space: 1}[Space((3, 4), torch.complex64)] == 1


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4, 3), r"image: expected shape \[\.\.\., 3, 4\], got \[4, 3\]"),
        (torch.zeros(4), r"expected shape \[\.\.\., 3, 4\], got \[4\]"),
        (torch.zeros(3, 4, dtype=torch.float64), r"expected torch\.float32, got torch\.float64; convert with"),
        ([[0.0]], r"expected a torch\.Tensor, got list"),
    ],
)
def test_check_says_what_was_expected_and_what_came(x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Space((3, 4)).check(x, "image")
    Space((3, 4)).check(torch.zeros(7, 3, 4), "image")


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
def test_norm_and_inner_product(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> None:
    space = Space(shape, dtype)
    a, b = (space.random(generator, (2, 3)) for _ in range(2))
    flat_a, flat_b = (v.reshape(2, 3, -1) for v in (a, b))
    expected = (flat_a.conj() * flat_b).sum(-1)
    torch.testing.assert_close(space.inner(a, b), expected)
    torch.testing.assert_close(space.inner(b, a), expected.conj())
    torch.testing.assert_close(space.norm(a) ** 2, space.inner(a, a).real)
    assert space.norm(a).dtype == torch.float64
    torch.testing.assert_close(space.norm(a.conj()), space.norm(a))
    assert space.expand(space.norm(a)).shape == (2, 3, *(1,) * len(shape))
    torch.testing.assert_close(space.norm(a / space.expand(space.norm(a))), torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(), (3,), (3, 4)])
def test_squared_norm(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> None:
    """The square of the norm, and at 0 too it has the second derivative of a square."""
    space = Space(shape, dtype)
    x = space.random(generator, (2,))
    torch.testing.assert_close(space.squared(x), space.norm(x) ** 2)
    torch.testing.assert_close(space.squared(x.conj()), space.norm(x) ** 2)
    zero = space.zeros().requires_grad_()
    (slope,) = torch.autograd.grad(space.squared(zero), zero, create_graph=True)
    (bend,) = torch.autograd.grad(slope, zero, torch.ones_like(zero))
    torch.testing.assert_close(bend, 2 * torch.ones_like(zero))


def test_norm_of_views() -> None:
    """Slices, transposes and lazy conjugates of complex tensors are elements too."""
    x = torch.arange(24.0).reshape(4, 6) * (1 + 2j)
    space = Space((6, 4), torch.complex64)
    torch.testing.assert_close(space.norm(x.mH), space.norm(x.mH.resolve_conj().contiguous()))
    torch.testing.assert_close(Space((4, 3), torch.complex64).norm(x[:, ::2]), x[:, ::2].abs().square().sum().sqrt())


def test_random_elements_have_unit_variance_and_a_seed() -> None:
    for dtype in (torch.float32, torch.complex64):
        space = Space((50, 40), dtype)
        x, again = (space.random(torch.Generator().manual_seed(3), (5,)) for _ in range(2))
        assert torch.equal(x, again)
        assert x.dtype == dtype
        assert float(x.abs().square().mean()) == pytest.approx(1, abs=0.05)


def test_zeros() -> None:
    z = Space((3, 4), torch.complex64).zeros((2,))
    assert (z.shape, z.dtype) == ((2, 3, 4), torch.complex64)
    assert not z.any()
