"""The nine hooks, through docs/plugins.md: its examples are written to disk, installed, discovered and used.

Every hook has a heading of its name there, and a test of its name here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from priorloom import Case, Registry, Term, compare, hooks
from priorloom.bench.machine import Machine
from priorloom.bench.report import Report
from priorloom.bench.run import find_jobs, run_jobs
from priorloom.card import Architecture, Facts, Learning, Scope, Stability, SubjectFacts
from priorloom.checking import check_component
from priorloom.comparison import default_methods
from priorloom.errors import InputError, ReaderError
from priorloom.loading import read_case
from priorloom.metrics import metrics
from priorloom.models import save_model
from priorloom.reconstruction import Method, reconstruct

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str, str]] = re.findall(r"(?:^`([\w./-]+)`\n\n)?^```(\w+)\n(.*?)^```$", TEXT, re.M | re.S)
HOOKS = sorted(name for name in vars(hooks) if hasattr(getattr(hooks, name), "priorloom_spec"))
COMPONENTS = [
    ("operator", "blur.gaussian"), ("prior", "anchor"), ("denoiser", "local-wiener"), ("pipeline", "wiener"),
    ("modality", "blur"), ("reader", "pgm"), ("architecture", "learned-landweber"),
    ("benchmark", "blur.gaussian"),
]  # fmt: skip


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """What is installed once the package of the documentation is."""
    folder = tmp_path_factory.mktemp("site")
    for path, language, code in BLOCKS:
        if path.startswith("priorloom_blur/"):
            assert language == "python"
            (folder / path).parent.mkdir(exist_ok=True)
            with (folder / path).open("a", encoding="utf-8") as file:
                file.write(code)
    facts = folder / "priorloom_blur-1.2.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: priorloom-blur\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text("[priorloom]\nblur = priorloom_blur\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield Registry.discover()
    for name in [m for m in sys.modules if m.partition(".")[0] == "priorloom_blur"]:
        del sys.modules[name]


def test_every_hook_is_documented_and_tested():
    assert len(HOOKS) == 9
    headings = re.findall(r"^### `(\w+)`$", TEXT, re.M)
    assert sorted(headings) == HOOKS
    assert all(f"test_{hook}" in globals() for hook in HOOKS)


def test_every_python_block_says_which_file_it_is():
    unlabelled = [code for path, language, code in BLOCKS if language == "python" and not path]
    assert unlabelled == []
    assert len([path for path, _, _ in BLOCKS if path]) > 12


def test_the_walk_through_shows_the_template_as_it_is():
    template = ROOT / "tests" / "thirdparty"
    shown = {path: code for path, _, code in BLOCKS if path.startswith("priorloom-huber/")}
    files = {str(p.relative_to(template)) for p in (template / "priorloom-huber").rglob("*.py")}
    assert set(shown) == files | {"priorloom-huber/pyproject.toml"}
    for path, code in shown.items():
        assert (template / path).read_text(encoding="utf-8") == code, path


def test_the_example_is_found_like_any_plugin(registry):
    (plugin,) = (p for p in registry.plugins if p.name == "blur")
    assert (plugin.distribution, plugin.version, plugin.error) == ("priorloom-blur", "1.2", None)
    assert sum(map(len, plugin.components.values())) == 10
    for kind, names in plugin.components.items():
        for name in names:
            for p in registry.parameters(kind, name):
                assert p.help or p.name.startswith(("prior.", "case.seed")), f"{kind} {name}: {p.name} has no help"


def test_priorloom_operators(registry, generator):
    A = registry.operator("blur.gaussian", image_shape=(8, 9), width=1.0).double()
    x, y = A.domain.random(generator, (2,)), A.range.random(generator, (2,))
    torch.testing.assert_close(A.range.inner(A(x), y), A.domain.inner(x, A.adjoint(y)))
    assert torch.autograd.gradcheck(A, (x.requires_grad_(),))
    delta = A.domain.zeros()
    delta[4, 4] = 1
    blurred, n = A(delta), torch.arange(8) - 4.0
    assert blurred.sum() == pytest.approx(1)
    assert (blurred.sum(1) * n**2).sum() == pytest.approx(1.0, rel=0.02)  # the variance is the width squared
    torch.testing.assert_close(A.normal(A.solve_normal(x, 0.1)) + 0.1 * A.solve_normal(x, 0.1), x)
    with pytest.raises(InputError, match="width of the blur: expected a positive number, got 0"):
        registry.operator("blur.gaussian", image_shape=(8, 8), width=0)


def test_priorloom_priors(registry, generator):
    space = registry.operator("blur.gaussian", image_shape=(5, 4)).domain
    f = registry.prior("anchor", space, lam=2.0, level=0.5)
    x = space.random(generator, (3,))
    u = f.prox(x, 0.3)
    torch.testing.assert_close(f.gradient(u) + (u - x) / 0.3, torch.zeros_like(x), atol=1e-5, rtol=0)
    z = x.clone().requires_grad_()
    f(z).sum().backward()
    torch.testing.assert_close(z.grad, f.gradient(x))


def test_priorloom_denoisers(registry, generator):
    space = registry.operator("blur.gaussian", image_shape=(32, 30)).domain
    denoise = registry.denoiser("local-wiener", space, radius=2)
    clean = torch.ones(2, *space.shape)
    clean[:, 10:20, 10:20] = 3.0
    noisy = clean + 0.2 * space.random(generator, (2,))
    got = denoise(noisy, torch.tensor(0.2))
    assert got.shape == noisy.shape
    assert (got - clean).square().mean() < 0.3 * (noisy - clean).square().mean()
    torch.testing.assert_close(denoise(clean, torch.tensor(0.0)), clean)
    with pytest.raises(InputError, match="space of the denoiser 'local-wiener'"):
        registry.denoiser("local-wiener", space.with_dtype(torch.complex64))


def test_priorloom_pipelines(registry):
    (case,) = registry.modality("blur").cases(registry, {}, seed=0)
    A, y = case.operator, case.measurement
    wiener = reconstruct(case, Method("wiener", {"rho": 0.1}), registry=registry)
    x = wiener.image
    torch.testing.assert_close(A.adjoint(A(x) - y), -0.1 * x, atol=1e-2, rtol=0)  # 0.5 |Ax - y|^2 + 0.05 |x|^2 at rest
    anchored = reconstruct(
        case, Method("deblur-fista", {"prior.lam": 0.1, "solver.tolerance": 1e-6}), registry=registry
    )
    assert anchored.converged
    torch.testing.assert_close(anchored.image, x, atol=0.05, rtol=0)  # the same problem
    chosen = reconstruct(case, "deblur-fista", registry=registry).parameters
    assert chosen["prior.lam"] > 0
    assert chosen["prior.level"] == 0.0


def test_priorloom_modalities(registry):
    cases = registry.modality("blur").cases(registry, {"width": 1.2}, seed=0, noise=1.0)
    assert registry.modality("blur").noise_std(cases[0]) == pytest.approx(1.0, rel=0.1)
    results = compare(cases, registry=registry)
    assert [r.method for r in results] == ["wiener", "deblur-fista", "tv-pdhg"]
    assert all(r.converged is not False for r in results)
    psnr = {r.method: r.metrics["psnr"] for r in results}
    assert psnr["tv-pdhg"] > psnr["wiener"] + 3  # a chequerboard is what total variation is for
    (case,) = cases
    assert psnr["wiener"] > metrics(case.measurement, case.truth, 100.0)["psnr"] + 2


def test_a_modality_that_can_be_trained_on(registry, generator):
    modality = registry.modality("blur")
    training = modality.training
    simulate = training.simulator(registry, {"width": 1.2}, (32, 24), seed=0, noise=3.0)
    images = torch.stack([training.phantoms["squares"]((32, 24), generator) for _ in range(2)])
    assert torch.equal(training.from_stored(images - 1, generator), (images - 1).clamp_min(0))
    images[1] *= 5
    batch = simulate(images, generator)
    assert batch.noise_std.shape == (2,)
    for i in range(2):
        case = Case("one", "blur", batch.operator, batch.measurement[i], batch.truth[i], float(batch.noise_std[i]))
        assert modality.scale(case) == pytest.approx(1.0)
        noise = case.measurement - batch.operator(case.truth)
        assert float(noise.std()) == pytest.approx(case.noise_std, rel=0.1)
    assert modality.describe(batch.operator) == {"rows": 32, "columns": 24, "width [pixels]": 1.2}


def test_priorloom_readers(registry, tmp_path):
    path = tmp_path / "cells.pgm"
    path.write_bytes(b"P5\n7 5\n255\n" + bytes(range(35)))
    case = read_case(path, registry, options={"width": 2})
    assert case.modality == "blur"
    assert torch.equal(case.measurement, torch.arange(35.0).reshape(5, 7))
    assert type(case.operator).__name__ == "GaussianBlur"
    path.write_bytes(b"P5\n7 5\n255\n" + bytes(34))
    with pytest.raises(ReaderError, match=r"cells.pgm: expected 5 x 7 pixels, got 34 bytes"):
        read_case(path, registry)
    path.write_bytes(b"P5\n7 99999999999\n255\n")
    with pytest.raises(ReaderError, match=r"header of cells.pgm: expected P5 COLUMNS ROWS 255"):
        read_case(path, registry)
    with pytest.raises(InputError, match=r"unknown parameter 'input.wdth' of reader 'pgm'; did you mean 'input.width'"):
        read_case(path, registry, options={"wdth": 2})


def test_priorloom_architectures(registry):
    (case,) = registry.modality("blur").cases(registry, {}, seed=0)
    A, y = case.operator, case.measurement
    net = registry.architecture("learned-landweber", A, {"layers": 3})
    x, t = torch.zeros_like(y), 1 / A.norm() ** 2  # the classical iteration, which it is before training
    for _ in range(3):
        x = x - t * A.adjoint(A(x) - y)
    torch.testing.assert_close(net(A, y, 1.0), x, rtol=1e-4, atol=1e-3)
    assert sum(p.numel() for p in net.parameters()) == 3


def test_priorloom_models(registry, tmp_path, monkeypatch):
    (case,) = registry.modality("blur").cases(registry, {}, seed=0)
    A = case.operator
    net = registry.architecture("learned-landweber", A, {"layers": 4})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(2.0)
    facts = Facts(
        name="blur.learned-landweber", version="1", modality="blur",
        architecture=Architecture("learned-landweber", {"layers": 4}),
        scope=Scope("blur.gaussian", "real", "real", {"rows": (64, 64), "columns": (64, 64)}, (0.01, 0.05)),
        learning=Learning((SubjectFacts("chequerboard", "made here", "CC0"),), (), "mse", 0, 1, 0.1),
        metrics=(), certificate=Stability(1.0, "gradient steps do not expand"),
    )  # fmt: skip
    monkeypatch.setattr("priorloom_blur.MODELS", tmp_path)
    save_model(tmp_path / "blur.learned-landweber" / "1", net, facts)
    assert "blur.learned-landweber" not in registry.names("model")
    registry = Registry.discover()
    assert registry.model("blur.learned-landweber") == tmp_path / "blur.learned-landweber" / "1"
    assert default_methods(registry, "blur") == ("wiener", "deblur-fista", "tv-pdhg", "learned-landweber")
    result = reconstruct(case, "learned-landweber", registry=registry)
    y = case.scaled(result.scale).measurement
    torch.testing.assert_close(result.image, net(A, y, 0.02).detach() * result.scale)
    assert (result.tuned, result.certificate, result.iterations) == ("learned", "none", 4)
    assert result.model.parameters == 4
    assert result.warnings == ()
    assert check_component(registry, "model", "blur.learned-landweber")


def test_priorloom_benchmarks(registry):
    (job,) = find_jobs(registry, ["blur.gaussian"])
    assert job.case.batches == (1, 8)
    report = Report(Machine(torch.device("cpu")))
    run_jobs(registry, [job], report, repeats=1)
    assert report.skipped == []
    assert [(r.batch, r.operation) for r in report.rows] == [(b, o) for b in (1, 8) for o in ("forward", "adjoint")]
    for row in report.rows:
        (peer,) = row.peers
        assert peer.name == "scipy"
        assert peer.difference < 1e-5  # another implementation of the same map
        assert peer.ratio == pytest.approx(peer.seconds / row.seconds)
        assert row.cost_stated
        assert row.cost.flops > 5 * row.batch * 256**2


@pytest.mark.parametrize("component", COMPONENTS, ids="-".join)
def test_the_example_passes_the_conformance_kit(registry, component):
    assert check_component(registry, *component)


def test_the_shipped_priors_fill_the_slot_of_the_example(registry):
    (case,) = registry.modality("blur").cases(registry, {}, seed=0)
    got = reconstruct(case, Method("deblur-fista", {"prior.name": "l1"}), registry=registry)
    assert got.parameters["prior.name"] == "l1"
    assert isinstance(registry.prior("tv", case.operator.domain, lam=1.0), Term)


def test_the_operator_of_the_example_works_in_a_network(registry):
    A = registry.operator("blur.gaussian", image_shape=(8, 8))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.A, self.t = A, nn.Parameter(torch.tensor(0.5))

        def forward(self, y: Tensor) -> Tensor:
            return self.t * self.A.adjoint(y)

    net = Net()
    net(A(torch.ones(3, 8, 8))).sum().backward()
    assert net.t.grad is not None
    assert float(net.t.grad) == pytest.approx(192, rel=1e-5)
