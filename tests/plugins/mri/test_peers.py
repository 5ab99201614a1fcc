"""sigpy's operators as peers of the bench: the same maps, in our order and scale."""

from __future__ import annotations

import pytest
import torch

from priorloom import LinearOperator, Registry, Space
from priorloom.bench import Peer
from priorloom.errors import InputError, PluginError
from priorloom.operator import Identity
from priorloom_mri import peers
from priorloom_mri.coils import birdcage_maps
from priorloom_mri.masks import make_mask
from priorloom_mri.nufft import radial2d
from priorloom_mri.operators import sense2d

pytest.importorskip("sigpy", reason="sigpy is the peer")


def differences(A: LinearOperator, peer: Peer) -> list[float]:
    x = A.domain.random(torch.Generator().manual_seed(0))
    y = A(x)
    found = []
    for ready, given, expected in (
        (peer.forward, x, y), (peer.adjoint, y, A.adjoint(y)), (peer.normal, x, A.normal(x)),
    ):  # fmt: skip
        assert ready is not None
        timed = ready(given)
        found.append(float((timed.to_tensor(timed.call()) - expected).norm() / expected.norm()))
    return found


def test_sigpys_sense_is_the_same_map(generator: torch.Generator) -> None:
    mask = make_mask("variable-density", (24, 20), acceleration=3.0, generator=generator)
    A = sense2d(maps=birdcage_maps(4, (24, 20)), mask=mask)
    assert max(differences(A, peers.sigpy_sense(A))) < 1e-5


def test_several_sets_of_maps_are_not_compared() -> None:
    A = sense2d(maps=birdcage_maps(4, (12, 10)).expand(2, 4, 12, 10))
    with pytest.raises(InputError, match="operator for sigpy: expected one set of maps and one frame"):
        peers.sigpy_sense(A)


def test_sigpys_nufft_is_the_same_map_to_its_accuracy() -> None:
    A = radial2d(maps=birdcage_maps(3, (24, 20)), spokes=17, readout=40)
    found = differences(A, peers.sigpy_nufft(A))
    assert 1e-6 < max(found) < 2e-2


def test_other_operators_and_a_missing_package_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="operator for sigpy: expected coil maps and a mask, got Identity"):
        peers.sigpy_sense(Identity(Space((4, 4))))
    with pytest.raises(InputError, match="operator for sigpy: expected coil maps and a trajectory, got Identity"):
        peers.sigpy_nufft(Identity(Space((4, 4))))

    def absent(module: str) -> None:
        raise ModuleNotFoundError(name="sigpy")

    monkeypatch.setattr(peers, "import_module", absent)
    with pytest.raises(PluginError, match="this peer needs the package sigpy; install it with pip install sigpy"):
        peers.sigpy_sense(Identity(Space((4, 4))))


def test_the_cases_are_those_that_the_documentation_names() -> None:
    registry = Registry.discover()
    (sense,), (radial,) = (registry.benchmark(name).cases for name in ("mri.sense2d", "mri.radial2d"))
    assert (sense.label, sense.batches) == ("256x256, 8 coils, random points", (1, 8, 32))
    assert sense.parameters["maps"]().shape == (8, 256, 256)
    assert 0.2 < float(sense.parameters["mask"]().float().mean()) < 0.3
    assert radial.label == "256x256, 64 spokes of 512, 8 coils"
    assert (radial.parameters["spokes"], radial.parameters["readout"]) == (64, 512)
