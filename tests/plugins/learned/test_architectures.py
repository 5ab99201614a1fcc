"""Every architecture on small CT and MRI operators: what it is when new, what it shares, and that all of it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom import Problem, Registry, Term, run
from priorloom.constraints import Positive, StepSize
from priorloom.errors import DivergenceError, InputError
from priorloom.functional import LeastSquares, Weighted
from priorloom.lipschitz import certificate, jacobian_norm
from priorloom.modality import Batch
from priorloom.noise import backprojected_std
from priorloom.operator import LinearOperator
from priorloom.steps import ISTA, ExactUpdate
from priorloom.steps.splitting import ADMM
from priorloom.train.diverged import check_gradients, diverged
from priorloom.unrolled import Unrolled

SMALL: dict[str, dict[str, Any]] = {
    "learned-admm": {"layers": 2, "width": 2, "depth": 2, "budget": 3},
    "learned-admm-exact": {"layers": 2, "width": 2, "depth": 2},
    "learned-admm-network": {"layers": 2, "width": 2, "depth": 2, "inner_width": 2},
    "learned-ista": {"layers": 2},
    "learned-primal-dual": {"layers": 2, "width": 2, "depth": 2, "memory": 1},
    "learned-proximal-gradient": {"layers": 2, "width": 2, "depth": 2},
    "memory-modl": {"layers": 2, "memory": 1, "width": 2, "depth": 2},
    "modl": {"layers": 2, "width": 2, "depth": 2},
    "nonexpansive-proximal-gradient": {"layers": 2, "width": 2, "depth": 2},
    "unet": {"width": 4, "levels": 1},
    "variational-network": {"layers": 2, "width": 2, "depth": 2},
}
UNROLLED = [name for name in SMALL if name != "unet"]
WITH_NETWORK = [name for name in SMALL if name not in ("unet", "learned-ista")]
BOUNDED = ("learned-ista", "nonexpansive-proximal-gradient")
"""Architectures of which no training step can make the output overflow."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.discover()


def make_operator(registry: Registry, kind: str) -> LinearOperator:
    if kind == "ct":
        return registry.operator(
            "ct.parallel2d", image_shape=(8, 8), pixel_size=1.0, views=6, detectors=12, detector_pitch=1.0
        )
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    if kind == "mri":
        return registry.operator("mri.fourier2d", image_shape=(8, 8), mask=mask)
    maps = torch.randn(3, 8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    return registry.operator("mri.sense2d", maps=maps, mask=mask)


@pytest.fixture(scope="module", params=["ct", "mri"])
def A(request: pytest.FixtureRequest, registry: Registry) -> LinearOperator:
    return make_operator(registry, request.param)


def measured(A: LinearOperator, batch: int = 2) -> tuple[Tensor, Tensor]:
    """A true image and its noisy measurement."""
    generator = torch.Generator().manual_seed(3)
    x = A.domain.random(generator, (batch,))
    return x, A(x) + 0.01 * A.range.random(generator, (batch,))


def made(registry: Registry, name: str, A: LinearOperator, **settings: Any) -> Unrolled:
    torch.manual_seed(0)
    return registry.architecture(name, A, {**SMALL[name], **settings})


def fits(name: str, A: LinearOperator) -> bool:
    """The closed form of the x-update exists for Fourier sampling only."""
    return name != "learned-admm-exact" or A.domain.is_complex


def randomised(model: Unrolled, scale: float = 0.3) -> Unrolled:
    """Away from the initial zeros."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=torch.float32).to(p.dtype))
    return model


def gradient_steps(A: LinearOperator, y: Tensor, back: Callable[[Tensor], Tensor], t: float, n: int) -> Tensor:
    x = A.pseudo_inverse(y)
    for _ in range(n):
        x = x - t * back(A(x) - y)
    return x


@pytest.mark.parametrize("name", ["learned-proximal-gradient", "nonexpansive-proximal-gradient", "variational-network"])
@pytest.mark.parametrize("back", ["adjoint", "pseudo-inverse"])
def test_new_proximal_gradients_are_gradient_descent(
    registry: Registry, A: LinearOperator, name: str, back: str
) -> None:
    _, y = measured(A)
    model = made(registry, name, A, back=back)
    carry = A.adjoint if back == "adjoint" else A.pseudo_inverse
    lipschitz = model.problem(A, y, 0.01).data.lipschitz()
    assert lipschitz is not None
    with torch.no_grad():
        torch.testing.assert_close(
            model(A, y, 0.01), gradient_steps(A, y, carry, 1 / lipschitz, 2), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("prior", ["wavelet-l1", "l1"])
def test_new_learned_ista_is_ista(registry: Registry, A: LinearOperator, prior: str) -> None:
    _, y = measured(A)
    model = made(registry, "learned-ista", A, **{"prior.name": prior})
    weight = 0.01 * backprojected_std(A)
    g = registry.prior(prior, A.domain, lam=1.0)
    problem = Problem(Term(LeastSquares(A.range, y), A), Weighted(g, weight))
    expected = run(ISTA(), problem, n=2, tol=1e-30, x0=A.pseudo_inverse(y)).x
    with torch.no_grad():
        torch.testing.assert_close(model(A, y, 0.01), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["learned-admm", "learned-admm-exact", "modl"])
def test_new_admm_and_modl_are_the_proximal_point_method(registry: Registry, name: str) -> None:
    A = make_operator(registry, "mri")
    _, y = measured(A)
    model = made(registry, name, A)
    x = A.pseudo_inverse(y)
    for _ in range(2):
        solved = A.solve_normal(A.adjoint(y) + 0.1 * x, 0.1)
        assert solved is not None
        x = solved
    with torch.no_grad():
        # The spectrum of A^H A is {0, 1}: conjugate gradients need two iterations.
        torch.testing.assert_close(model(A, y, 0.01), x, rtol=1e-3, atol=1e-3)


def test_a_new_network_solve_is_a_gradient_step(registry: Registry, A: LinearOperator) -> None:
    _, y = measured(A)
    model = made(registry, "learned-admm-network", A)
    square = A.norm() ** 2
    x = A.pseudo_inverse(y)
    for _ in range(2):
        x = x - (A.normal(x) - A.adjoint(y)) / (1.1 * square)  # with z = x the penalty pulls nowhere
    with torch.no_grad():
        torch.testing.assert_close(model(A, y, 0.01), x, rtol=1e-4, atol=1e-5)


def test_a_new_unet_is_the_direct_method(registry: Registry, A: LinearOperator) -> None:
    _, y = measured(A)
    with torch.no_grad():
        torch.testing.assert_close(made(registry, "unet", A)(A, y, 0.01), A.pseudo_inverse(y))


@pytest.mark.parametrize("back", ["adjoint", "pseudo-inverse"])
def test_a_new_learned_primal_dual_is_pdhg(registry: Registry, A: LinearOperator, back: str) -> None:
    """Chambolle and Pock's algorithm 1 written out, with both step sizes from the Lipschitz constant."""
    _, y = measured(A)
    model = made(registry, "learned-primal-dual", A, back=back)
    tau = 1 / (model.problem(A, y, 0.01).data.lipschitz() or 1.0)
    carry = A.adjoint if back == "adjoint" else A.pseudo_inverse
    x = extrapolated = A.pseudo_inverse(y)
    q = torch.zeros_like(y)
    for _ in range(2):
        q = (q + A(extrapolated) - y) / 2
        new = x - tau * carry(q)
        x, extrapolated = new, 2 * new - x
    with torch.no_grad():
        torch.testing.assert_close(model(A, y, 0.01), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", UNROLLED)
def test_shared_layers_share_their_parameters(registry: Registry, A: LinearOperator, name: str) -> None:
    if not fits(name, A):
        return
    one = made(registry, name, A, layers=1)
    own = made(registry, name, A, layers=3, shared=False)
    shared = made(registry, name, A, layers=3, shared=True)
    count = [sum(p.numel() for p in m.parameters()) for m in (one, own, shared)]
    assert count == [count[0], 3 * count[0], count[0]]
    assert len({id(layer) for layer in shared.layers}) == 1
    _, y = measured(A)
    assert made(registry, name, A, layers=3, shared=True)(A, y, 0.01).shape == y.shape[:1] + A.domain.shape


@pytest.mark.parametrize("name", SMALL)
def test_parameters_do_not_depend_on_the_operator_at_hand(registry: Registry, name: str) -> None:
    small = make_operator(registry, "mri")
    large = registry.operator("mri.fourier2d", image_shape=(12, 10), mask=None)
    model = randomised(made(registry, name, small))
    other = made(registry, name, large)
    other.load_state_dict(model.state_dict())
    _, y = measured(large)
    assert other(large, y, 0.01).isfinite().all()


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(registry: Registry, A: LinearOperator, name: str) -> None:
    if not fits(name, A):
        with pytest.raises(InputError, match="exact x-update"):
            made(registry, name, A)(A, measured(A)[1], 0.01)
        return
    x, y = measured(A)
    model = randomised(made(registry, name, A))
    (model(A, y, 0.3) - x).abs().square().sum().backward()
    for parameter_name, p in model.named_parameters():
        assert p.grad is not None, parameter_name
        assert float(p.grad.abs().sum()) > 0, parameter_name


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_finite_differences(registry: Registry, name: str) -> None:
    A = make_operator(registry, "mri").double()
    _, y = measured(A, 1)
    model = randomised(made(registry, name, A)).double()
    names, values = zip(*model.named_parameters(), strict=True)
    noise = torch.tensor(0.3, dtype=torch.float64)

    def output(*parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        result: Tensor = torch.func.functional_call(model, given, (A, y, noise))
        return result

    assert torch.autograd.gradcheck(output, values, fast_mode=True, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["learned-proximal-gradient", "learned-admm", "learned-admm-exact", "learned-admm-network"]
)
def test_without_skips_the_network_replaces_its_input(registry: Registry, name: str) -> None:
    A = make_operator(registry, "mri")
    _, y = measured(A)
    with torch.no_grad():
        for skip in (True, False):
            model = made(registry, name, A, skip=skip)
            for parameter in model.layers[-1].prior.parameters():
                parameter.zero_()  # a network that is zero
            assert bool(model(A, y, 0.01).any()) == skip


@pytest.mark.parametrize("name", UNROLLED)
@pytest.mark.parametrize("layers", [0, -1])
def test_no_layers_are_refused(registry: Registry, name: str, layers: int) -> None:
    A = make_operator(registry, "mri")
    with pytest.raises(InputError, match=f"layers of an unrolled network: expected at least 1, got {layers}"):
        made(registry, name, A, layers=layers)


def test_the_exact_solve_says_where_it_does_not_exist(registry: Registry) -> None:
    A = make_operator(registry, "sense")
    _, y = measured(A)
    with pytest.raises(InputError, match=r"exact x-update: expected one operator with solve_normal .* use CGUpdate"):
        made(registry, "learned-admm-exact", A)(A, y, 0.01)
    for name in ("learned-admm", "learned-admm-network"):
        assert made(registry, name, A)(A, y, 0.01).isfinite().all()


def test_the_three_x_updates_are_slots_of_one_step(registry: Registry) -> None:
    A = make_operator(registry, "mri")
    steps = [made(registry, name, A).layers[0].step for name in SMALL if name.startswith("learned-admm")]
    assert all(isinstance(step, ADMM) for step in steps)
    assert len({type(step.x_update) for step in steps}) == 3
    assert isinstance(steps[1].x_update, ExactUpdate)


def test_names_of_parameters_are_kept(registry: Registry) -> None:
    """Trained models are files of these names."""
    A = make_operator(registry, "mri")
    network = [f"network.network.convolutions.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")]
    expected: Mapping[str, list[str]] = {
        "learned-proximal-gradient": ["step.step_size.free", *(f"prior.{n}" for n in network)],
        "nonexpansive-proximal-gradient": [
            "step.step_size.free",
            "prior.network.network.free",
            *(f"prior.network.network.network.{i}.weight" for i in (0, 2)),
        ],
        "learned-admm": ["step.rho.factor.free", *(f"prior.{n}" for n in network)],
        "memory-modl": ["rho.factor.free", *network],
        "modl": ["step.rho.factor.free", *(f"prior.{n}" for n in network)],
        "learned-ista": ["step.step_size.free", "prior.weight.free"],
        "learned-primal-dual": [
            "ratio.free",
            *(f"{side}.{n.removeprefix('network.')}" for side in ("primal", "dual") for n in network),
        ],
        "variational-network": ["step_size.free", *(f"regulariser.{n.removeprefix('network.')}" for n in network)],
    }
    for name, names in expected.items():
        found = [n for n in made(registry, name, A).state_dict() if n.startswith("layers.0.")]
        assert sorted(found) == sorted(f"layers.0.{n}" for n in names), name
        assert len(made(registry, name, A, shared=False).state_dict()) == 2 * len(names)


def test_the_nonexpansive_architecture_is_certified(registry: Registry, A: LinearOperator) -> None:
    x, y = measured(A, 1)
    model = randomised(made(registry, "nonexpansive-proximal-gradient", A), 2.0)
    found = certificate(model.layers, model.problem(A, y, 0.01))
    assert found.bound == 1.0
    assert found.per_layer == (1.0, 1.0)
    problem = model.problem(A, y, 0.01)
    assert jacobian_norm(lambda image: run(model.layers, problem, x0=image).x, x, 10) <= 1 + 1e-5
    plain = randomised(made(registry, "learned-proximal-gradient", A))
    bound = certificate(plain.layers, plain.problem(A, y, 0.01)).bound
    assert bound is not None
    assert bound > 1


def wild_steps(model: Unrolled, A: LinearOperator, steps: int) -> None:
    """Plain SGD with learning rate 5 on the mean squared error, without clipping, checked as a training is."""
    x, y = measured(A)
    batch = Batch(A, y, x, torch.full((len(x),), 0.1))
    optimiser = torch.optim.SGD(model.parameters(), lr=5.0)
    for k in range(steps):
        optimiser.zero_grad()
        loss = (model(A, y, batch.noise_std) - x).abs().square().mean()
        if not bool(loss.isfinite()):
            raise diverged(model, batch, k, "nothing is kept")
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        check_gradients(model, float(norm), k, "nothing is kept")
        optimiser.step()
        for module in model.modules():
            if isinstance(module, StepSize):
                assert 0 < float(module(A.norm() ** 2).detach()) < 2 / A.norm() ** 2
            if isinstance(module, Positive):
                assert 0 <= float(module().detach()) < float("inf")


@pytest.mark.parametrize("name", BOUNDED)
def test_a_thousand_wild_steps_leave_everything_legal_and_finite(registry: Registry, name: str) -> None:
    A = make_operator(registry, "mri")
    settings = {"prior.name": "l1"} if name == "learned-ista" else {}
    model = made(registry, name, A, **settings)
    wild_steps(model, A, 1000)
    _, y = measured(A)
    assert bool(model(A, y, 0.1).isfinite().all())
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert certificate(model.layers, model.problem(A, y, 0.1)).bound == pytest.approx(1.0)


def test_wild_modl_overflows_or_its_network_dies(registry: Registry) -> None:
    """It stays finite where the step that makes it explode also kills every ReLU: what is left of the network is a
    constant, and the data take that out of the image, as its frequency was measured."""
    A = make_operator(registry, "mri")
    x, y = measured(A)
    dead = 0
    for seed in range(10):
        torch.manual_seed(seed)
        model = registry.architecture("modl", A, {**SMALL["modl"], "width": 4, "depth": 3})
        try:
            wild_steps(model, A, 100)
        except DivergenceError:
            continue
        dead += 1
        loss = (model(A, y, 0.1) - x).abs().square().mean()
        assert bool(loss.isfinite())
        loss.backward()
        convolutions = [p for n, p in model.named_parameters() if "convolutions" in n]
        assert all(p.grad is not None and not bool(p.grad.any()) for p in convolutions[:-1])
    assert dead > 0


@pytest.mark.parametrize("name", [name for name in SMALL if name not in (*BOUNDED, "modl")])
def test_plain_networks_stop_with_a_clear_error(registry: Registry, name: str) -> None:
    """Nothing bounds their convolutions: such steps make them overflow, with every step size legal until the end."""
    A = make_operator(registry, "mri")
    settings = {} if name == "unet" else {"width": 4, "depth": 3}
    # Where every gradient is finite and only their norm overflows, no layer is to blame more than the others.
    where = r"(layer \d of \d \(|all of them, whose sum overflows)"
    with pytest.raises(DivergenceError, match=rf"training diverged at batch \d+: .*{where}"):
        wild_steps(made(registry, name, A, **settings), A, 1000)
