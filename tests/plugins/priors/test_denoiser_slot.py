"""What a method finds wrong with a denoiser before it iterates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom import Registry
from priorloom.errors import InputError
from priorloom.regularity import name_of, regularity_of
from priorloom.trained import ModelSlot
from priorloom_priors.denoiser_slot import Filled


def writes(x: Tensor, sigma: Tensor) -> Tensor:
    x *= 0.9
    return x


def test_a_denoiser_that_writes_into_its_image_is_refused_and_does_not_reach_it() -> None:
    x = torch.ones(8, 8)
    with pytest.raises(InputError, match=r"denoiser 'mine': expected .* left as it was, got one that was written into"):
        Filled("mine", writes, writes).examine(x, 0.1)
    assert torch.equal(x, torch.ones(8, 8))


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError])
def test_whatever_fails_on_complex_images_is_one_line_and_names_the_fallback(kind: type[Exception]) -> None:
    def fails(x: Tensor, sigma: Tensor) -> Tensor:
        raise kind("complex numbers\nare not known")

    filled = Filled("mine", fails, fails)
    with pytest.raises(InputError, match=r"'mine' on complex images.*complex_mode=real-imaginary") as caught:
        filled.examine(torch.ones(8, 8, dtype=torch.complex64), 0.1)
    assert "\n" not in str(caught.value)
    with pytest.raises(kind):  # on real images a bug of the denoiser, which a message would hide
        filled.examine(torch.ones(8, 8), 0.1)


def test_a_message_names_what_a_person_wrote() -> None:
    def factory() -> Any:
        return lambda x, sigma: x

    made = factory()
    assert name_of(writes) == "writes"
    assert "factory" not in regularity_of(writes, 0.1).reason
    assert name_of(made).endswith("names_what_a_person_wrote")
    wrapped = torch.nn.Module()
    wrapped.denoiser = torch.nn.Identity()
    assert name_of(wrapped) == "Identity"


@pytest.mark.parametrize("slot", [{"path": True}, {"name": "ct.ridge"}])
def test_a_denoiser_is_no_reconstruction(slot: dict[str, Any]) -> None:
    registry = Registry.discover()
    place = {"path": registry.model("ct.ridge")} if "path" in slot else slot
    with pytest.raises(InputError, match=r"'ct\.ridge' in method 'learned': expected one that reconstructs, got a"):
        ModelSlot(registry=registry, **place).card("ct")
