"""The registry: names, isolation of broken plugins, selection, lazy factories, and errors that name the culprit."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from priorloom import Registry, Scan, Space, hookimpl
from priorloom.bundle import write
from priorloom.errors import InputError, PluginError, ReaderError
from priorloom.functional import Zero
from priorloom.loading import read_case
from priorloom.operator import Identity


def flat(space: Space, *, lam: float) -> Zero:
    """A prior without preference."""
    return Zero(space)


def identity(*, size: int) -> Identity:
    """An operator that does nothing."""
    return Identity(Space((size,)))


def test_every_kind_of_component_is_found_by_name(discover):
    registry = discover(
        a={
            "operators": {"toy.identity": lambda: Identity(Space((2,)))},
            "priors": {"flat": flat},
            "denoisers": {"none": lambda space: lambda x, sigma: x},
            "pipelines": {"p": lambda: "pipeline"},
            "modalities": {"toy": lambda: "modality"},
            "readers": {"r": lambda: "reader"},
        }
    )
    assert registry.names("operator") == ("toy.identity",)
    assert isinstance(registry.operator("toy.identity"), Identity)
    assert isinstance(registry.prior("flat", Space((2,)), lam=1), Zero)
    x = torch.ones(2)
    assert registry.denoiser("none", Space((2,)))(x, torch.tensor(1.0)) is x
    made = (registry.pipeline("p"), registry.modality("toy"), registry.reader("r"))
    assert made == ("pipeline", "modality", "reader")
    assert registry.source("prior", "flat") == "a"
    (plugin,) = registry.plugins
    assert (plugin.name, plugin.distribution, plugin.version, plugin.error) == ("a", "a-dist", "1.0", None)
    assert plugin.components["prior"] == ("flat",)


def test_the_shipped_plugins_are_entry_points_like_any_other():
    declared = {e.name for e in distribution("priorloom").entry_points if e.group == "priorloom"}
    loaded = {p.name: p for p in Registry.discover().plugins if p.distribution == "priorloom"}
    assert declared == set(loaded) == {"core", "ct", "learned", "mri", "priors"}
    assert all(p.error is None for p in loaded.values())


def test_discovery_imports_nothing_heavy():
    code = (
        "import sys; from priorloom import Registry; r = Registry.discover(); assert r.names('operator');"
        "print([m for m in ('torch', 'odl', 'astra', 'skimage', 'h5py', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_shipped_component_has_a_factory_and_readable_parameters():
    registry = Registry.discover()
    kinds = ("operator", "prior", "denoiser", "pipeline", "modality", "reader")
    named = [(kind, name) for kind in kinds for name in registry.names(kind) if "," not in registry.source(kind, name)]
    assert len(named) > 20
    for kind, name in named:
        for parameter in registry.parameters(kind, name):
            assert parameter.type_name


@pytest.mark.parametrize("failure", [ImportError("no\nsuch\nthing"), SystemExit(3), RuntimeError("torchvision::nms")])
def test_a_broken_plugin_takes_nothing_else_down(discover, failure):
    registry = discover(bad=failure, good={"priors": {"flat": flat}})
    assert registry.names("prior") == ("flat",)
    bad, _ = registry.plugins
    assert bad.name == "bad"
    assert bad.error == f"{type(failure).__name__}: {' '.join(str(failure).split())}"
    with pytest.raises(
        InputError, match=r"unknown prior 'flatt'; did you mean 'flat'\?; not loaded: bad \(bad-dist 1.0\)"
    ):
        registry.factory("prior", "flatt")


def test_debug_lets_the_exception_of_a_plugin_through(discover, monkeypatch):
    monkeypatch.setenv("PRIORLOOM_DEBUG", "1")
    with pytest.raises(ImportError, match="no such thing"):
        discover(bad=ImportError("no such thing"))
    registry = discover(lazy={"priors": {"gone": "no_such_module:attribute"}})
    with pytest.raises(ModuleNotFoundError):
        registry.factory("prior", "gone")


def test_priorloom_plugins_selects(discover, monkeypatch):
    monkeypatch.setenv("PRIORLOOM_PLUGINS", " b ,a")
    registry = discover(a={"priors": {"x": flat}}, b={"priors": {"y": flat}}, c={"priors": {"x": flat}})
    assert [p.name for p in registry.plugins] == ["a", "b"]
    assert registry.factory("prior", "x") is flat
    monkeypatch.setenv("PRIORLOOM_PLUGINS", "hubre")
    with pytest.raises(InputError, match="unknown plugin 'hubre' in PRIORLOOM_PLUGINS; did you mean 'huber'"):
        discover(huber={"priors": {"x": flat}})


def test_two_plugins_that_claim_one_name_are_both_named(discover):
    registry = discover(a={"priors": {"x": flat, "y": flat}}, b={"priors": {"x": flat}})
    with pytest.raises(PluginError, match=r"prior 'x' is claimed by plugins 'a' \(a-dist\) and 'b' \(b-dist\)"):
        registry.prior("x", Space((2,)), lam=1.0)
    assert registry.factory("prior", "y") is flat
    assert registry.source("prior", "x") == "a, b"


@hookimpl
def priorloom_prior():
    """A misspelt hook: the plural is missing."""
    return {}


@hookimpl
def priorloom_priors():
    """A hook that returns nothing."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SimpleNamespace(priorloom_prior=priorloom_prior), "'priorloom_prior'; did you mean 'priorloom_priors'?"),
        (SimpleNamespace(priorloom_priors=priorloom_priors), "priorloom_priors returned NoneType"),
        (SimpleNamespace(priorloom_priors=lambda: {}), "no hook found; decorate"),
        (None, "no hook found"),
        ({"priors": ["flat"]}, "priorloom_priors returned list: expected a mapping name -> factory"),
        ({"priors": {"flat": 3}}, "expected names with a callable or 'module:attribute', got 'flat': 3"),
        ({"priors": {"flat": "module.attribute"}}, "expected 'package.module:attribute', got 'module.attribute'"),
        ({"operators": {"identity": flat}}, "expected a name like 'modality.name', got 'identity'"),
        ({"priors": {"toy.flat": flat}}, "expected a plain name"),
        ({"priors": {"../flat": flat}}, "expected a plain name"),
        ({"priors": {"": flat}}, "expected a plain name"),
    ],
)  # fmt: skip
def test_what_a_plugin_gets_wrong_is_reported(discover, content, message):
    (plugin,) = discover(wrong=content).plugins
    assert plugin.error is not None
    assert message in plugin.error
    assert not plugin.components


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:x", r"prior 'late' of plugin 'p' \(p-dist\) cannot be loaded: ModuleNotFoundError"),
        ("math:no_such_function", "cannot be loaded: AttributeError"),
        ("math:pi", r"factory of prior 'late' \(math:pi\): expected a callable, got float"),
    ],
)
def test_a_lazy_factory_that_cannot_be_loaded_names_its_plugin(discover, target, message):
    registry = discover(p={"priors": {"late": target}})
    assert registry.names("prior") == ("late",)
    with pytest.raises(PluginError, match=message):
        registry.factory("prior", "late")


def test_parameters_are_checked_before_the_factory_is_called(discover):
    registry = discover(p={"priors": {"flat": flat}})
    space = Space((2,))
    with pytest.raises(InputError, match="unknown parameter 'lambda' of prior 'flat'"):
        registry.prior("flat", space, **{"lambda": 1.0})
    with pytest.raises(InputError, match="prior 'flat' needs parameter 'lam': expected float, got nothing"):
        registry.prior("flat", space)
    with pytest.raises(InputError, match="parameter 'lam' of prior 'flat': expected float, got 'much'"):
        registry.prior("flat", space, lam="much")


def test_a_reader_that_cannot_be_loaded_keeps_no_other_from_its_files(discover, tmp_path):
    readers = {"bundle": "priorloom.bundle:bundle", "late": "no_such_module:x"}
    registry = discover(p={"readers": readers, "operators": {"toy.identity": identity}})
    path = tmp_path / "a.npz"
    write(path, Scan("toy", "toy.identity", {"size": 3}, np.ones(3, np.float32)))
    assert read_case(path, registry).measurement.shape == (3,)
    with pytest.raises(ReaderError, match=r"expected one of .*not loaded: reader 'late' of plugin 'p'"):
        read_case(Path(__file__), registry)
