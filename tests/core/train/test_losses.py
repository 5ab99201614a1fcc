"""Losses against scikit-image and their definitions; the parts of split measurements."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from skimage.metrics import structural_similarity

from priorloom import Registry
from priorloom.errors import InputError
from priorloom.modality import Batch
from priorloom.operator import LinearOperator
from priorloom.space import Space
from priorloom.testing import check_operator
from priorloom.train.losses import Objective, Supervised, make_loss, ssim
from priorloom.train.splits import Noise2Inverse, Selected, SelfSupervised


def test_ssim_is_that_of_scikit_image(generator: torch.Generator) -> None:
    truth = torch.rand((3, 20, 17), generator=generator)
    image = truth + 0.1 * torch.randn(truth.shape, generator=generator)
    expected = [
        structural_similarity(t.numpy(), x.numpy(), data_range=float(t.max() - t.min()))
        for x, t in zip(image.double(), truth.double(), strict=True)
    ]
    # scikit-image leaves out a border of half a window, as windows that fit do.
    torch.testing.assert_close(ssim(image.double(), truth.double()), torch.tensor(expected, dtype=torch.float64))


def test_supervised_by_definition(generator: torch.Generator) -> None:
    x, t = (torch.randn((2, 9, 8), dtype=torch.complex64, generator=generator) for _ in range(2))
    for weights, expected in (
        ((1.0, 0.0, 0.0), (x - t).abs().square().mean()),
        ((0.0, 2.0, 0.0), 2 * (x - t).abs().mean()),
        ((1.0, 2.0, 3.0), None),
    ):
        loss = Supervised(*weights, torch.abs).compare(x, t)
        if expected is None:
            alone = [Supervised(*(w * (i == j) for j, w in enumerate(weights)), torch.abs) for i in range(3)]
            expected = torch.stack([part.compare(x, t) for part in alone]).sum()
        torch.testing.assert_close(loss, expected)
    assert Supervised(1.0, 1.0, 1.0, torch.abs).compare(t, t) == 0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mes": 1.0}, "did you mean 'mse'"),
        ({"mse": 0}, "at least one positive weight"),
        ({"mse": -1}, "at least 0"),
        ({"mse": True}, "at least 0"),
        ({"mse": "much"}, "at least 0"),
        ({"objective": 1.0, "mse": 1.0}, "'objective' alone"),
        ({"noise2inverse": {"part": 3}}, "did you mean 'parts'"),
        ({"noise2inverse": {"parts": 1}}, "2 to 64"),
        ({"noise2inverse": 3}, "settings such as {}"),
        ({"ssdu": {"share": 1.5}}, "share in (0, 1)"),
    ],
)
def test_what_a_loss_refuses(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        make_loss(settings, Registry.discover().modality("ct"))
    assert text in str(caught.value)


@pytest.fixture(scope="module")
def ct() -> Batch:
    """A disc-like image seen from 12 views, twice."""
    A = Registry.discover().operator("ct.parallel2d", image_shape=(16, 16), pixel_size=4.0, views=12)
    x = torch.rand((2, 16, 16), generator=torch.Generator().manual_seed(0))
    return Batch(A, A(x), x, torch.tensor([0.1, 0.1]))


def test_the_objective_is_that_of_the_problem(ct: Batch) -> None:
    model = Registry.discover().architecture("learned-ista", ct.operator, {"layers": 2})
    loss = Objective()(model, ct, torch.Generator())
    x = model(ct.operator, ct.measurement, ct.noise_std)
    problem = model.problem(ct.operator, ct.measurement, ct.noise_std)
    expected = (problem.objective(x) / (0.5 * ct.measurement.square().sum((-2, -1)))).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_objective_needs_a_prior(ct: Batch) -> None:
    model = Registry.discover().architecture("learned-proximal-gradient", ct.operator, {"layers": 1})
    with pytest.raises(InputError, match="whose problem has a prior"):
        Objective()(model, ct, torch.Generator())


def test_groups_of_views_are_disjoint_and_each_is_a_scan_of_its_own(ct: Batch) -> None:
    groups = Noise2Inverse(parts=4).groups(ct.operator)
    for given, target in groups:
        assert torch.equal(given.selection + target.selection, torch.ones(12, 1))
    assert torch.equal(sum(target.selection for _, target in groups), torch.ones(12, 1))  # type: ignore[arg-type]
    # The direct method of every third view is FBP of a scan with these views: the mean over groups is FBP of all.
    mean = torch.stack([target.pseudo_inverse(ct.measurement) for _, target in groups]).mean(0)
    torch.testing.assert_close(mean, ct.operator.pseudo_inverse(ct.measurement), rtol=1e-4, atol=1e-5)
    views = [i * 180 / 12 for i in range(0, 12, 4)]
    fewer = Registry.discover().operator("ct.parallel2d", image_shape=(16, 16), pixel_size=4.0, angles_deg=views)
    torch.testing.assert_close(
        groups[0][1].pseudo_inverse(ct.measurement), fewer.pseudo_inverse(ct.measurement[:, ::4]), rtol=1e-3, atol=1e-4
    )


def test_a_selected_operator_is_one(ct: Batch) -> None:
    check_operator(Selected(ct.operator, torch.arange(12)[:, None] % 3 > 0, 1.5))


def test_noise2inverse_uses_no_truth_and_reaches_every_weight(ct: Batch) -> None:
    model = Registry.discover().architecture("learned-proximal-gradient", ct.operator, {"layers": 1, "width": 4})
    losses = [
        Noise2Inverse()(
            model, Batch(ct.operator, ct.measurement, truth, ct.noise_std), torch.Generator().manual_seed(0)
        )
        for truth in (ct.truth, None)
    ]
    assert torch.equal(*losses)
    losses[0].backward()
    assert any(bool(p.grad is not None and (p.grad != 0).any()) for p in model.parameters())


def test_ssdu_splits_the_samples_and_always_gives_the_middle() -> None:
    registry = Registry.discover()
    mask = torch.rand((16, 16), generator=torch.Generator().manual_seed(0)) < 0.5
    mask[6:10, 6:10] = True
    A = registry.operator("mri.fourier2d", image_shape=(16, 16), mask=mask)
    y = A(torch.randn((2, 16, 16), dtype=torch.complex64, generator=torch.Generator().manual_seed(1)))
    loss = SelfSupervised(share=0.4)
    given, held = loss._split(A, y, 0)
    assert torch.equal((given.selection + held.selection).bool(), mask)
    assert float((given.selection * held.selection).sum()) == 0
    assert bool(given.selection[6:10, 6:10].all())
    assert 0.2 < float(held.selection.sum() / mask.sum()) < 0.5
    model = registry.architecture("variational-network", A, {"layers": 1, "width": 4})
    value = loss(model, Batch(A, y, None, torch.tensor([0.1, 0.1])), torch.Generator().manual_seed(0))
    assert 0 < float(value.detach()) < 10
    value.backward()


class Scaled(LinearOperator):
    """``y = w x``; its one tensor can move to any device."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(Space((16, 16), dtype), Space((16, 16), dtype))
        self.register_buffer("weights", torch.full((16, 16), 2.0))
        self.weights: torch.Tensor

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weights * x

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.weights * y

    def _pseudo_inverse(self, y: torch.Tensor) -> torch.Tensor:
        return y / self.weights


@pytest.mark.parametrize(("loss", "dtype"), [(Noise2Inverse(), torch.float32), (SelfSupervised(), torch.complex64)])
def test_parts_follow_their_operator_to_another_device(
    loss: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is first computed on the CPU, as a check; then the operators move to the accelerator."""

    def model(A: Any, y: torch.Tensor, noise_std: torch.Tensor) -> torch.Tensor:
        assert A.device == A.operator.device == y.device
        return A.adjoint(y)

    A = Scaled(dtype)
    batch = Batch(A, A(torch.ones((2, 16, 16), dtype=dtype)), None, torch.tensor([0.1, 0.1]))
    assert loss(model, batch, torch.Generator().manual_seed(0)).device.type == "cpu"
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for the meta device
    moved = batch.to("meta")
    assert loss(model, moved, torch.Generator().manual_seed(0)).device.type == "meta"


def test_each_splitting_is_for_its_modality(ct: Batch) -> None:
    registry = Registry.discover()
    model = registry.architecture("learned-proximal-gradient", ct.operator, {"layers": 1})
    with pytest.raises(InputError, match="for CT use noise2inverse"):
        SelfSupervised()(model, ct, torch.Generator())
    A = registry.operator("mri.fourier2d", image_shape=(16, 16))
    with pytest.raises(InputError, match="for k-space use ssdu"):
        Noise2Inverse().groups(A)
