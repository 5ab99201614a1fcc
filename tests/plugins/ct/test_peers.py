"""The peers of the bench compute the same map, in our units and order; what cannot be compared is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from priorloom import LinearOperator, Registry, Space
from priorloom.bench import Peer
from priorloom.errors import InputError, PriorloomError
from priorloom.operator import Identity
from priorloom_ct import backends, peers
from priorloom_ct.operators import fanbeam2d, parallel2d
from priorloom_ct.operators3d import conebeam3d

from .conftest import Disc

Relative = Callable[[torch.Tensor, torch.Tensor], float]


def compared(A: LinearOperator, peer: Peer, x: torch.Tensor, relative: Relative) -> tuple[float, float]:
    """How far forward and adjoint are from ours."""
    assert peer.forward is not None
    assert peer.adjoint is not None
    y = A(x)
    there, back = peer.forward(x), peer.adjoint(y)
    return relative(there.to_tensor(there.call()), y), relative(back.to_tensor(back.call()), A.adjoint(y))


SCANS = {
    "parallel": lambda: parallel2d(image_shape=(40, 52), views=30, pixel_size=1.3, detector_pitch=0.9),
    "fan": lambda: fanbeam2d(
        image_shape=(52, 40), angles_deg=tuple(range(0, 361, 6)), source_to_axis=120.0, axis_to_detector=60.0,
        pixel_size=1.3, offset=2.5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCANS)
def test_odl_is_the_same_map(name: str, disc: Disc, relative: Relative) -> None:
    A = SCANS[name]()
    there, back = compared(A, peers.odl_astra(A), disc.image(A.geometry), relative)
    assert there < 1e-4
    assert back < 2e-3  # ASTRA adds up in single precision


@pytest.mark.parametrize("detectors", [87, 91, 92, 99])
def test_scikit_image_is_nearly_the_same_map(detectors: int, disc: Disc, relative: Relative) -> None:
    A = parallel2d(image_shape=(64, 64), views=60, pixel_size=1.5, detectors=detectors)
    there, back = compared(A, peers.scikit_image(A), disc.image(A.geometry), relative)
    limit = 0.08 if detectors % 2 else 0.12  # it has a detector element on the axis
    assert 1e-3 < there < limit
    assert 1e-3 < back < limit


@pytest.mark.parametrize(
    "make",
    [
        lambda: fanbeam2d(image_shape=(16, 16), views=8, source_to_axis=90.0, axis_to_detector=10.0),
        lambda: parallel2d(image_shape=(16, 12), views=8),
        lambda: parallel2d(image_shape=(16, 16), views=8, offset=1.0),
        lambda: parallel2d(image_shape=(16, 16), views=8, detector_pitch=2.0),
    ],
)
def test_scikit_image_is_not_compared_on_other_scans(make: Callable[[], LinearOperator]) -> None:
    with pytest.raises(InputError, match="scan for scikit-image: expected parallel rays"):
        peers.scikit_image(make())


def test_what_odl_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no offset"):
        peers.odl_astra(parallel2d(image_shape=(16, 16), views=8, offset=1.0))
    with pytest.raises(InputError, match="scan for this peer: expected one slice"):
        peers.odl_astra(Identity(Space((4, 4))))

    def absent(module: str) -> None:
        raise ModuleNotFoundError(name=module)

    monkeypatch.setattr(backends, "import_module", absent)
    with pytest.raises(PriorloomError, match="this peer needs the package odl"):
        peers.odl_astra(parallel2d(image_shape=(16, 16), views=8))


def test_cone_beams_are_compared_on_cuda_only(relative: Relative) -> None:
    A = conebeam3d(
        image_shape=(16, 20, 18), views=24, source_to_axis=90.0, axis_to_detector=40.0, row_offset=1.5, offset=-2.0,
        detector_shape=(30, 40),
    )  # fmt: skip
    if torch.cuda.is_available():
        x = torch.zeros(A.domain.shape)
        x[3:9, 5:14, 2:11] = 0.02
        there, back = compared(A, peers.odl_astra_cone(A), x, relative)
        assert there < 0.05  # another kernel
        assert back < 0.05
    else:
        with pytest.raises(InputError, match="ASTRA's cone beam: expected a CUDA GPU"):
            peers.odl_astra_cone(A)


def test_the_cases_are_those_that_the_documentation_names() -> None:
    registry = Registry.discover()
    sizes = {}
    for name in ("ct.conebeam3d", "ct.fanbeam2d", "ct.parallel2d"):
        for case in registry.benchmark(name).cases:
            A = registry.operator(name, **case.parameters)
            sizes[case.label] = (A.domain.shape, A.range.shape, case.batches)
    assert sizes == {
        "64x64x64, 90 views of 96x96": ((64, 64, 64), (90, 96, 96), (1,)),
        "HTC 2022: 512x512, 721 views, 560 detectors": ((512, 512), (721, 560), (1,)),
        "256x256, 180 views, 365 detectors": ((256, 256), (180, 365), (1, 16)),
        "LoDoPaB: 362x362, 1000 views, 513 detectors": ((362, 362), (1000, 513), (1,)),
    }
