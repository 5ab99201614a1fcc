"""A denoiser that cannot be used is refused by what certifies it, in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom import Space
from priorloom.certify import certify_denoiser
from priorloom.errors import InputError
from priorloom.examination import examine

IMAGE = torch.linspace(0, 1, 64).reshape(8, 8)


def writes(x: Tensor, sigma: Tensor) -> Tensor:
    return x.mul_(0.9)


BAD: list[tuple[Callable[[Tensor, Tensor], Any], str]] = [
    (lambda x, s: x[1:], r"expected \[8, 8\] torch\.float32, got \[7, 8\]"),
    (lambda x, s: x.double(), r"got \[8, 8\] torch\.float64"),
    (lambda x, s: None, "expected a tensor, got NoneType"),
    (lambda x, s: x * torch.nan, "expected finite values"),
    (writes, "got one that was written into"),
]


@pytest.mark.parametrize(("denoise", "message"), BAD)
def test_certify_refuses_what_no_method_would_run(denoise: Callable[[Tensor, Tensor], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        certify_denoiser(denoise, Space((8, 8)), 0.1, [IMAGE.clone()], iterations=2)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message):
        examine(denoise, "mine", IMAGE, torch.tensor(0.1))


def test_what_fails_on_complex_images_names_the_fallback() -> None:
    def real_only(x: Tensor, sigma: Tensor) -> Tensor:
        return x.clamp(0, 1)

    with pytest.raises(InputError, match=r"the denoiser .* on complex images: .*complex_mode="):
        certify_denoiser(real_only, Space((8, 8), torch.complex64), 0.1, [IMAGE.to(torch.complex64)], iterations=2)


def test_an_image_is_handed_back_and_left_alone() -> None:
    x = IMAGE.clone()
    assert torch.equal(examine(lambda x, s: 0.5 * x, "mine", x, torch.tensor(0.1)), 0.5 * IMAGE)
    assert torch.equal(x, IMAGE)
