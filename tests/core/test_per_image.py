"""A prior on a stack of images is the sum over the images."""

from __future__ import annotations

import pytest
import torch

from priorloom import Registry, Space, Term
from priorloom.errors import InputError
from priorloom.operator import Gradient
from priorloom.per_image import PerImage, PerImageOperator, per_image
from priorloom.testing import check_functional, check_operator

ONE, STACK = Space((6, 5), torch.complex64), Space((3, 6, 5), torch.complex64)


@pytest.mark.parametrize("name", ["l1", "tikhonov", "wavelet-l1", "tv-prox"])
def test_a_functional_is_added_up_and_its_prox_is_that_of_each(name: str, generator: torch.Generator) -> None:
    one = Registry.discover().prior(name, ONE, lam=0.3)
    each = per_image(one, STACK)
    assert isinstance(each, PerImage)
    x = STACK.random(generator, (2,))
    torch.testing.assert_close(each(x), one(x).sum(-1))
    steps = torch.tensor([0.1, 0.7])
    proxes = each.prox(x, steps)
    for b, step in enumerate(steps.tolist()):
        for i in range(3):
            torch.testing.assert_close(proxes[b, i], one.prox(x[b, i], step), atol=1e-3, rtol=1e-3)
    if one.has_conjugate:
        z = 0.01 * x
        torch.testing.assert_close(each.conjugate(z), one.conjugate(z).sum(-1))
    if name == "tikhonov":  # that which has all parts
        check_functional(each)


def test_a_term_keeps_the_images_apart(generator: torch.Generator) -> None:
    one = Registry.discover().prior("tv", ONE, lam=0.3)
    each = per_image(one, STACK)
    assert isinstance(each, Term)
    check_operator(each.K)
    x = STACK.random(generator)
    torch.testing.assert_close(each(x), sum(one(image) for image in x))
    assert each.K.norm_bounds() == Gradient(ONE).norm_bounds()


def test_one_image_is_left_as_it_is() -> None:
    one = Registry.discover().prior("l1", ONE, lam=0.3)
    assert per_image(one, ONE) is one
    with pytest.raises(InputError, match=r"image of a prior: expected the last dimensions of \[3, 6, 5\]"):
        per_image(Registry.discover().prior("l1", Space((5, 6), torch.complex64), lam=0.3), STACK)
    assert PerImageOperator(Gradient(ONE), (2, 3)).range.shape == (2, 3, 2, 6, 5)
