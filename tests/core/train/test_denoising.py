"""Training denoisers end to end: every architecture, real and complex, and what a config may not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from priorloom import Registry, Space
from priorloom.errors import InputError
from priorloom.models import tensors_of
from priorloom.operator import Identity
from priorloom.regularity import regularity_of
from priorloom.train.config import load
from priorloom.train.denoising import OPERATOR, Denoising, denoising
from priorloom.train.run import train
from priorloom.train.sources import make_sides
from priorloom.trained_denoiser import load_denoiser

SMALL: dict[str, dict[str, Any]] = {
    "averaged": {"width": 4, "depth": 2},
    "dncnn": {"width": 4, "depth": 2},
    "drunet": {"widths": [4, 6], "blocks": 1},
    "gradient-step": {"widths": [4, 6], "blocks": 1},
    "ridge": {"side": 3, "iterations": 3},
}
SPACES = {"ct": Space((16, 16)), "mri": Space((16, 16), torch.complex64)}
PHANTOMS = {"ct": ("ellipses", "foam"), "mri": ("shepp-logan", "shepp-logan")}


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """``config("ct", "ridge", steps=3)`` writes a tiny config with changes and returns its path."""

    def write(modality: str = "ct", architecture: str = "ridge", **changes: Any) -> Path:
        learn, judge = PHANTOMS[modality]
        plan = {
            "modality": modality,
            "architecture": {"name": architecture, **SMALL[architecture]},
            "image_shape": [16, 16],
            "denoising": {"noise": [0.0, 0.196]},
            "data": {
                "train": [{"subject": "a", "phantom": learn}],
                "validation": [{"subject": "b", "phantom": judge}],
            },
            "batch_size": 2,
            "steps": 3,
            "validate_every": 3,
            "validation_batches": 1,
        }
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in {**plan, **changes}.items() if v is not None}))
        return path

    return write


@pytest.mark.parametrize("modality", ["ct", "mri"])
@pytest.mark.parametrize("name", list(SMALL))
def test_every_architecture_trains_and_comes_back(
    name: str, modality: str, config: Any, registry: Registry, tmp_path: Path
) -> None:
    plan = load(config(modality, name, optimiser={"learning_rate": 1e-2, "ema": None}))
    space = SPACES[modality]
    done = train(plan, registry, tmp_path / "out")
    assert done.folder == tmp_path / "out" / f"{modality}.{name}" / "1"
    scope = done.card.scope
    assert (scope.operator, scope.images) == (OPERATOR, "complex" if space.is_complex else "real")
    assert 0 <= scope.noise_std[0] < scope.noise_std[1]

    torch.manual_seed(plan.seed)
    fresh = registry.architecture(name, Identity(space), plan.architecture_settings)
    denoiser = load_denoiser(done.folder, space, registry)
    learned = dict(denoiser.network.named_parameters())
    unmoved = [n for n, p in tensors_of(fresh).items() if torch.equal(p, learned[n.removeprefix("layers.0.network.")])]
    assert not unmoved

    x = space.random(torch.Generator().manual_seed(0), (2,))
    sigma = torch.tensor(0.5 * scope.noise_std[1])
    y = denoiser(x, sigma)
    assert (y.shape, y.dtype, y.requires_grad) == (x.shape, x.dtype, False)
    assert bool(y.isfinite().all())
    known = regularity_of(denoiser, sigma)
    assert known.gradient == (name == "gradient-step") == hasattr(denoiser, "potential")
    assert (known.averaged is not None) == (name == "averaged")


def test_training_in_bfloat16(config: Any, registry: Registry, tmp_path: Path) -> None:
    """Derivatives of derivatives included."""
    for name in ("gradient-step", "averaged", "ridge"):
        plan = load(config("mri", name, optimiser={"precision": "bf16"}))
        assert train(plan, registry, tmp_path / name).step == 3


def test_training_lowers_the_loss(config: Any, registry: Registry, tmp_path: Path) -> None:
    def loss(steps: int, rate: float) -> float:
        plan = load(config("ct", "gradient-step", steps=steps, validate_every=steps, optimiser={
            "learning_rate": rate, "ema": None}))  # fmt: skip
        from priorloom.train.checkpoint import load as checkpoint

        train(plan, registry, tmp_path / str(steps))
        found = checkpoint(tmp_path / str(steps) / "checkpoints/best.pt").best_loss
        assert found is not None
        return found

    assert loss(40, 3e-3) < 0.9 * loss(1, 1e-9)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_the_noise_is_a_fraction_of_the_data_range(modality: str, registry: Registry) -> None:
    """White, of the stated level per entry, on images that the modality has normalised."""
    training = registry.modality(modality).training
    assert training is not None
    kind = registry.modality(modality)
    phantom = training.phantoms[PHANTOMS[modality][0]]
    generator = torch.Generator().manual_seed(3)
    images = torch.stack([phantom((64, 64), generator) for _ in range(8)])
    batch = denoising(Denoising((0.1, 0.1)), kind, training)(images, generator)
    assert batch.truth is not None
    ranges = torch.tensor([kind.data_range(kind.display(x)) for x in batch.truth])
    torch.testing.assert_close(batch.noise_std, 0.1 * ranges)
    noise = batch.measurement - batch.truth
    torch.testing.assert_close(noise.abs().square().mean((-2, -1)).sqrt(), batch.noise_std, rtol=0.06, atol=0)
    torch.testing.assert_close(batch.truth * training.unit(images)[:, None, None], images)
    if noise.is_complex():  # both parts alike
        torch.testing.assert_close(noise.real.std((-2, -1)), batch.noise_std / 2**0.5, rtol=0.1, atol=0)


def test_levels_are_drawn_from_the_whole_range(config: Any, registry: Registry) -> None:
    plan = load(config(denoising={"noise": [0.05, 0.2]}, steps=60))
    sides = make_sides(plan, registry)
    modality = registry.modality("ct")
    levels = []
    for i in range(60):
        batch = sides.train[i]
        assert batch.truth is not None
        ranges = [modality.data_range(modality.display(x)) for x in batch.truth]
        levels += (batch.noise_std / torch.tensor(ranges)).tolist()
    assert min(levels) >= 0.05 - 1e-6
    assert max(levels) <= 0.2 + 1e-6
    # the root of the level is uniform between the roots
    assert sum(level < ((0.05**0.5 + 0.2**0.5) / 2) ** 2 for level in levels) / 120 == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"operator": {"views": 12}}, "either denoising, or operator and simulation"),
        ({"simulation": {"photons": [1e4, 1e5]}}, "either denoising, or operator and simulation"),
        ({"denoising": {"noise": [-0.1, 0.2]}}, "a range of fractions of the data range"),
        ({"denoising": {"noise": [0.2, 0.1]}}, "a range of fractions of the data range"),
        ({"denoising": {"noise": [0.0, 0.0]}}, "a range of fractions of the data range"),
        ({"denoising": {"noise": [0.0, float("inf")]}}, "a range of fractions of the data range"),
        ({"denoising": {"noise": [0.0, float("nan")]}}, "a range of fractions of the data range"),
        ({"denoising": {"noise": 0.2}}, "noise"),
        ({"denoising": {"nosie": [0.0, 0.2]}}, "noise"),
        ({"data": {"train": [{"subject": "a", "scan": "scan.cfl"}]}}, "files or phantoms"),
        ({"denoising": None}, "give the config 'denoising'"),
        ({"loss": {"noise2inverse": {"parts": 2}}}, "loss of a denoiser: expected some of l1, mse, ssim"),
        ({"loss": {"objective": 1.0}}, "loss of a denoiser"),
    ],
)
def test_configs_that_cannot_be_used(
    changes: dict[str, Any], match: str, config: Any, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "scan.cfl").write_bytes(b"")
    with pytest.raises(InputError, match=match) as caught:
        train(load(config(**changes)), registry, tmp_path / "out")
    assert "\n" not in str(caught.value)
