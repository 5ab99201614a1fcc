"""The LISTA architectures: ISTA when new, trainable, what they share, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from priorloom import Problem, Registry, Term, run
from priorloom.dense import DenseOperator
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.operator import Identity
from priorloom.space import Space
from priorloom.steps import ISTA
from priorloom.unrolled import Unrolled
from priorloom_priors.functionals import L1

NAMES = ("lista", "lista-cp", "lista-cpss", "lista-tied")
ROWS, COLUMNS, LAYERS, LAM = 12, 20, 6, 0.25


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.discover()


@pytest.fixture
def A(generator: torch.Generator) -> DenseOperator:
    M = torch.randn(ROWS, COLUMNS, generator=generator)
    return DenseOperator(M / M.norm(dim=0))


@pytest.fixture
def y(A: DenseOperator, generator: torch.Generator) -> Tensor:
    return A(sparse(7, generator))


def sparse(batch: int, generator: torch.Generator) -> Tensor:
    support = torch.rand(batch, COLUMNS, generator=generator) < 0.1
    return torch.randn(batch, COLUMNS, generator=generator) * support


def matrices(network: Unrolled) -> int:
    return sum(p.ndim == 2 for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_new_network_is_ista(name: str, registry: Registry, A: DenseOperator, y: Tensor) -> None:
    settings: dict[str, object] = {"layers": LAYERS, "lam": LAM}
    if name == "lista-cpss":
        settings["trusted"] = 0.0
    network = registry.architecture(name, A, settings)
    classical = Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, LAM))
    expected = run(ISTA(), classical, n=LAYERS, tol=1e-30).x
    torch.testing.assert_close(network(A, y, 0.0), expected, rtol=0, atol=2e-6)
    assert float(expected.abs().max()) > 0.1


def test_the_selecting_network_trusts_more_from_layer_to_layer(registry: Registry, A: DenseOperator) -> None:
    network = registry.architecture("lista-cpss", A, {"layers": 4, "trusted": 0.05, "most_trusted": 0.12})
    assert [layer.trusted for layer in network.layers] == pytest.approx([0.05, 0.1, 0.12, 0.12])


def test_what_the_layers_share(registry: Registry, A: DenseOperator) -> None:
    counts = {name: matrices(registry.architecture(name, A, {"layers": LAYERS})) for name in NAMES}
    assert counts == {"lista": 2 * LAYERS, "lista-tied": 2, "lista-cp": 1, "lista-cpss": 1}
    for name in ("lista-cp", "lista-cpss"):
        assert matrices(registry.architecture(name, A, {"layers": LAYERS, "shared": False})) == LAYERS


@pytest.mark.parametrize("name", NAMES)
def test_training_improves_on_ista(name: str, registry: Registry, A: DenseOperator) -> None:
    network = registry.architecture(name, A, {"layers": LAYERS})
    test = sparse(500, torch.Generator().manual_seed(99))

    def error() -> float:
        with torch.no_grad():
            return float((network(A, A(test), 0.0) - test).square().sum() / test.square().sum())

    before = error()
    g = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(150):
        x = sparse(64, g)
        optimiser.zero_grad()
        (network(A, A(x), 0.0) - x).square().sum().backward()
        optimiser.step()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    assert error() < 0.6 * before


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_come_back_from_a_state_dict(name: str, registry: Registry, A: DenseOperator, y: Tensor) -> None:
    network, other = (registry.architecture(name, A, {"layers": 3}) for _ in range(2))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1)
    assert not torch.equal(network(A, y, 0.0), other(A, y, 0.0))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(A, y, 0.0), other(A, y, 0.0))


@pytest.mark.parametrize("name", NAMES)
def test_operators_that_are_no_real_matrix_are_refused_in_one_line(name: str, registry: Registry) -> None:
    for operator in (Identity(Space((4,))), DenseOperator(torch.ones(2, 3, dtype=torch.complex64))):
        with pytest.raises(InputError, match=f"operator of {name}: expected a real DenseOperator") as caught:
            registry.architecture(name, operator)
        assert "\n" not in str(caught.value)
