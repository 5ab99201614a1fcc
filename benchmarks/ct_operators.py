"""Ray transform against ODL with ASTRA on the CPU: median times per image in one process, and their ratios.

Run: ``python benchmarks/ct_operators.py``. The contenders take turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from priorloom_ct.backends import backend
from priorloom_ct.operators import RayTransform, parallel2d

ROUNDS = 15
BATCH = 16


def odl_pair(operator: RayTransform) -> Callable[[], None]:
    """One forward and one adjoint of the same scan in ODL."""
    odl, tomo = backend("odl", "the benchmark"), backend("odl.applications.tomo", "the benchmark")
    geometry = operator.geometry
    half = [n * geometry.pixel_size / 2 for n in geometry.image_shape]
    space = odl.uniform_discr([-h for h in half], half, geometry.image_shape, dtype="float32")
    transform = tomo.RayTransform(space, geometry.to_odl(), impl="astra_cpu")
    image, adjoint = odl.phantom.shepp_logan(space, modified=True), transform.adjoint
    sinogram = transform(image)

    def pair() -> None:
        transform(image)
        adjoint(sinogram)

    return pair


def own_pair(operator: RayTransform, batch: int) -> Callable[[], None]:
    """One forward and one adjoint of a batch."""
    image, sinogram = torch.rand(batch, *operator.domain.shape), torch.rand(batch, *operator.range.shape)

    def pair() -> None:
        operator(image)
        operator.adjoint(sinogram)

    return pair


def main() -> None:
    """Print milliseconds per image for forward + adjoint, and how many times faster than ODL."""
    operator = parallel2d(image_shape=(256, 256), views=180, detectors=365, detector_pitch=1.0)
    contenders = {
        "ODL RayTransform(impl='astra_cpu')": (odl_pair(operator), 1),
        "ct.parallel2d, one image": (own_pair(operator, 1), 1),
        f"ct.parallel2d, batch of {BATCH}": (own_pair(operator, BATCH), BATCH),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.no_grad():
        for k in range(ROUNDS + 1):
            for name, (pair, images) in contenders.items():
                began = time.perf_counter()
                pair()
                if k:  # the first round computes weights and warms caches
                    times[name].append((time.perf_counter() - began) / images * 1e3)
    medians = {name: statistics.median(values) for name, values in times.items()}
    reference = next(iter(medians.values()))
    print(f"256 x 256, 180 views, 365 detectors, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, value in medians.items():
        print(f"{name:38s} {value:8.2f} ms per image {reference / value:7.1f} x")


if __name__ == "__main__":
    main()
