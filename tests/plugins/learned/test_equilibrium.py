"""The deep equilibrium: its theorem against dense algebra and measured distances, its training, its place in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import Registry, State, run
from priorloom.errors import InputError
from priorloom.lipschitz import certificate, network_bound, step_bound
from priorloom.networks import ConvolutionBlock, ImageNetwork
from priorloom.operator import LinearOperator
from priorloom.reconstruction import Method, reconstruct
from priorloom.steps.equilibrium import Equilibrium
from priorloom.testing.architectures import check_architecture
from priorloom.train.config import load
from priorloom.train.run import train
from priorloom.unrolled import Unrolled
from priorloom_learned.equilibrium import AnchoredProximalGradient

EXAMPLE = Path(__file__).parents[3] / "examples/train/ct-deep-equilibrium.yaml"
SMALL: dict[str, Any] = {"width": 4, "depth": 2, "anchor_width": 4, "anchor_depth": 2}
PRECISE: dict[str, Any] = {**SMALL, "tolerance": 1e-11, "max_iterations": 500}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.discover()


@pytest.fixture(scope="module", params=["ct", "mri"])
def A(request: pytest.FixtureRequest, registry: Registry) -> LinearOperator:
    if request.param == "ct":
        return registry.operator(
            "ct.parallel2d", image_shape=(8, 8), pixel_size=1.0, views=6, detectors=12, detector_pitch=1.0
        ).double()
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    return registry.operator("mri.fourier2d", image_shape=(8, 8), mask=mask).double()


def measured(A: LinearOperator, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = A.domain.random(generator, (batch,))
    return x, A(x) + 0.01 * A.range.random(generator, (batch,))


def made(registry: Registry, A: LinearOperator, scale: float = 0.0, **settings: Any) -> Unrolled:
    """In double precision, every parameter moved by `scale`."""
    torch.manual_seed(0)
    model = registry.architecture("deep-equilibrium", A, {**PRECISE, **settings}).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn_like(p))
    return model


def columns(map_of: Any, A: LinearOperator) -> Tensor:
    """The matrix of a linear map of images, by its columns."""
    basis = torch.eye(A.domain.size, dtype=A.domain.dtype).reshape(-1, *A.domain.shape)
    result: Tensor = map_of(basis).flatten(1).T
    return result


def test_it_conforms(registry: Registry) -> None:
    check_architecture(lambda operator: registry.architecture("deep-equilibrium", operator, SMALL))


def test_a_new_one_is_tikhonov_around_the_direct_image(registry: Registry, A: LinearOperator) -> None:
    _, y = measured(A)
    c = 0.8
    direct = A.pseudo_inverse(y)
    weight = (1 - c) * A.norm() ** 2 / c  # t = 1 / L
    normal = columns(A.normal, A)
    right = (A.adjoint(y) + weight * direct).flatten(1).T
    eye = torch.eye(len(normal), dtype=normal.dtype)
    expected = torch.linalg.solve(normal + weight * eye, right).T.reshape(direct.shape)
    with torch.no_grad():
        torch.testing.assert_close(made(registry, A, contraction=c)(A, y, 0.01), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("scale", [0.3, 5.0])
def test_the_step_contracts_whatever_it_has_learned(registry: Registry, A: LinearOperator, scale: float) -> None:
    _, y = measured(A)
    model = made(registry, A, scale, contraction=0.9)
    problem = model.problem(A, y, 0.01)
    step = model.layers[0].step
    assert step_bound(step, problem) == pytest.approx(0.9)
    generator = torch.Generator().manual_seed(1)
    a, b = A.domain.random(generator, (2,)), A.domain.random(generator, (2,))
    norm = A.domain.norm
    with torch.no_grad():
        for _ in range(30):  # directions that shrink least survive
            before, (a, b) = norm(a - b), (step(problem, State(v)).x for v in (a, b))
            assert bool((norm(a - b) <= 0.9 * before * (1 + 1e-9)).all())


def test_the_fixed_point_is_lipschitz_in_the_measurement(registry: Registry, A: LinearOperator) -> None:
    _, y = measured(A)
    model = made(registry, A, 0.3, contraction=0.9)
    step = model.layers[0].step
    t = float(step.step.step_size(A.norm() ** 2).detach())
    K = network_bound(step.anchor)
    assert isinstance(K, float)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        x = model(A, y, 0.01)
        for size in (1e-6, 1.0, 100.0):
            change = size * A(A.domain.random(generator, (2,)))
            back = A.domain.norm(A.pseudo_inverse(change))
            moved = A.domain.norm(model(A, y + change, 0.01) - x)
            bound = (0.9 * t * A.norm() * A.range.norm(change) + 0.1 * K * back) / 0.1
            assert bool((moved <= bound * (1 + 1e-5)).all())


def test_the_gradient_is_that_of_a_long_unroll(registry: Registry, A: LinearOperator) -> None:
    x, y = measured(A)
    model = made(registry, A, 0.3)
    unrolled = Unrolled([model.layers[0].step] * 300, back="adjoint")
    found = []
    for network in (model, unrolled):
        (network(A, y, 0.01) - x).abs().square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
    assert len(found[0]) == len(list(model.parameters()))
    for ours, theirs in zip(*found, strict=True):
        assert float((ours - theirs).norm()) < 1e-6 * float(theirs.norm())


def test_the_start_does_not_matter(registry: Registry, A: LinearOperator) -> None:
    _, y = measured(A)
    with torch.no_grad():
        images = [made(registry, A, 0.3, start=start)(A, y, 0.01) for start in ("zero", "pseudo-inverse")]
    torch.testing.assert_close(*images, rtol=1e-8, atol=1e-9)


def test_the_default_settings_solve_to_their_tolerance(registry: Registry, A: LinearOperator) -> None:
    _, y = measured(A)
    for contraction in (0.5, 0.9, 0.99):
        model = made(registry, A, 0.3, contraction=contraction, tolerance=1e-4, max_iterations=60)
        with torch.no_grad():
            found = run(model.layers, model.problem(A, y, 0.01), x0=model.starting_image(A, y)).state.found  # type: ignore[attr-defined]
        assert bool(found.converged.all()), contraction


def test_what_the_certificate_says(registry: Registry, A: LinearOperator) -> None:
    _, y = measured(A)
    model = made(registry, A, 0.3)
    found = certificate(model.layers, model.problem(A, y, 0.01))
    assert found.bound is None
    assert "contracts by 0.9: its fixed point is unique" in found.reason


@pytest.mark.parametrize("contraction", [0.0, 1.0, float("nan")])
def test_a_contraction_is_below_one(registry: Registry, A: LinearOperator, contraction: float) -> None:
    with pytest.raises(InputError, match="contraction of a deep equilibrium: expected between 0 and 1"):
        made(registry, A, contraction=contraction)


def test_a_network_without_the_bound_is_refused() -> None:
    free = ImageNetwork(ConvolutionBlock(1, 1, 4, 2), skip=True)
    for network in (free, ImageNetwork(nn.Conv2d(1, 1, 3))):
        with torch.no_grad():
            for p in network.parameters():
                p.fill_(1.0)
        with pytest.raises(InputError, match="network of a deep equilibrium: expected one with the Lipschitz bound 1"):
            AnchoredProximalGradient(network, free, 0.9)


def tiny(tmp_path: Path, changes: list[str]) -> Any:
    """The example on 16 x 16 images, with a small network."""
    small = [
        "architecture.width=4", "architecture.depth=2", "architecture.anchor_width=4", "image_shape=[16,16]",
        "operator.views=12", "simulation.pixel_sizes=[4.0]", "batch_size=2", "validation_batches=1",
    ]  # fmt: skip
    return load(EXAMPLE, [*small, *changes])


def test_the_example_trains_and_its_model_runs(registry: Registry, tmp_path: Path) -> None:
    seen: list[float] = []
    plan = tiny(tmp_path, ["steps=30", "validate_every=30", "optimiser.learning_rate=0.01", "optimiser.ema=0.5"])
    start = tiny(tmp_path, ["steps=1", "validate_every=1", "optimiser.learning_rate=1e-9"])
    for i, each in enumerate((start, plan)):
        points: list[Any] = []
        done = train(each, registry, tmp_path / str(i), watch=points.append)
        seen.append(next(p.validation_loss for p in reversed(points) if p.validation_loss is not None))
    assert seen[1] < 0.9 * seen[0]

    case = registry.modality("ct").cases(registry, {"views": 12}, seed=0, images=("ellipses",), image_shape=(16, 16))[0]
    row = reconstruct(case, Method("deep-equilibrium", {"model.path": str(done.folder)}), registry=registry)
    assert row.image.shape == (16, 16)
    assert "contracts by 0.9" in (done.folder / "card.json").read_text()


def test_the_example_is_an_architecture_as_it_stands(registry: Registry) -> None:
    plan = load(EXAMPLE)
    A = registry.operator("ct.parallel2d", image_shape=(8, 8), pixel_size=1.0, views=6)
    layer = registry.architecture(plan.architecture["name"], A, plan.architecture_settings).layers[0]
    assert isinstance(layer, Equilibrium)
    assert (layer.tolerance, layer.max_iterations) == (1e-3, 40)
