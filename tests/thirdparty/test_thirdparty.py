"""Real plugins, built and installed into a temporary folder, seen through the command line in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
Command = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """
modality: ct
operator: {views: 20}
case: {images: [shepp-logan], image_shape: [32, 32]}
methods:
  - fbp
  - method: tv-pdhg
    prior: {name: huber, delta: 0.02}
"""

RIVAL = """
from priorloom import hookimpl

@hookimpl
def priorloom_priors():
    return {"huber": "rival:huber"}
"""

MISSPELT = """
from priorloom import hookimpl

@hookimpl
def priorloom_prior():
    return {}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the good and the broken plugin, built from their sources and installed without a network."""
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    sources = [str(HERE / "priorloom-huber"), str(HERE / "priorloom-broken")]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def priorloom(site: Path, tmp_path: Path) -> Command:
    """``priorloom("plugins", PRIORLOOM_PLUGINS="huber")`` runs the command line where `site` is installed."""

    def run(*arguments: str, extra: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (site, extra) if extra else (site,)))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PRIORLOOM_")}
        return subprocess.run(
            [sys.executable, "-m", "priorloom_apps.cli", *arguments],
            capture_output=True, text=True, check=False, cwd=tmp_path, env=clean | {"PYTHONPATH": path} | environment,
        )  # fmt: skip

    return run


def install(folder: Path, name: str, code: str) -> Path:
    """A third distribution, as a wheel would leave it."""
    (folder / f"{name}.py").write_text(code)
    facts = folder / f"{name}-2.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: priorloom-{name}\nVersion: 2.0\n")
    (facts / "entry_points.txt").write_text(f"[priorloom]\n{name} = {name}\n")
    return folder


def test_plugins_lists_the_good_one_and_why_the_broken_one_is_not_loaded(priorloom):
    done = priorloom("plugins", "--json")
    assert done.returncode == 0, done.stderr
    plugins = {p["name"]: p for p in json.loads(done.stdout)}
    assert plugins["huber"]["distribution"] == "priorloom-huber"
    assert plugins["huber"]["version"] == "1.0.0"
    assert plugins["huber"]["components"] == {"prior": ["huber"]}
    assert plugins["huber"]["error"] is None
    assert plugins["broken"]["version"] == "0.3.0"
    assert plugins["broken"]["error"] == "ModuleNotFoundError: No module named 'a_package_that_is_not_installed'"
    assert {"core", "ct", "mri", "priors"} < set(plugins)
    table = priorloom("plugins").stdout
    assert "1.0.0" in table
    assert "a_package_that_is_not_installed" in table


def test_show_derives_the_parameters_from_the_signature(priorloom):
    done = priorloom("components", "show", "prior", "huber", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["plugin"] == "huber"
    lam, delta = shown["parameters"]
    assert (lam["name"], lam["type"], lam["required"]) == ("lam", "float", True)
    assert (delta["name"], delta["type"], delta["default"]) == ("delta", "float", 0.01)
    assert "neighbouring pixels" in delta["help"]


def test_compare_runs_with_the_foreign_prior_while_a_plugin_is_broken(priorloom, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    done = priorloom("compare", "config.yaml", "--out", "out")
    assert done.returncode == 0, done.stderr
    fbp, tv = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert (fbp["method"], tv["method"]) == ("fbp", "tv-pdhg")
    assert tv["converged"] is True
    assert tv["parameters"]["prior.name"] == "huber"
    assert tv["parameters"]["prior.delta"] == 0.02
    assert tv["parameters"]["prior.lam"] > 0
    assert tv["psnr"] > fbp["psnr"]


def test_a_wrong_parameter_of_the_foreign_prior_is_one_line(priorloom):
    for setting, said in [
        ("prior.dleta=1", "did you mean 'prior.delta'?"),
        ("prior.delta=-1", "delta of the prior 'huber': expected a positive number, got -1.0"),
    ]:
        done = priorloom(
            "compare", "--modality", "ct", "--method", "tv-pdhg", "--set", "prior.name=huber", "--set", setting,
            "--set", "case.image_shape=[16, 16]", "--set", "case.images=[shepp-logan]", "--set", "operator.views=5",
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_missing_component_names_the_plugin_that_might_have_had_it(priorloom):
    done = priorloom("components", "show", "prior", "hubre")
    assert done.returncode == 2
    assert "unknown prior 'hubre'; did you mean 'huber'?; not loaded: broken (priorloom-broken 0.3.0)" in done.stderr


def test_priorloom_plugins_chooses(priorloom):
    done = priorloom("plugins", "--json", PRIORLOOM_PLUGINS="core,huber")
    assert [p["name"] for p in json.loads(done.stdout)] == ["core", "huber"]
    wrong = priorloom("plugins", PRIORLOOM_PLUGINS="core,hubre")
    assert wrong.returncode == 2
    assert "did you mean 'huber'?" in wrong.stderr


def test_debug_shows_the_traceback_of_the_broken_plugin(priorloom):
    done = priorloom("plugins", PRIORLOOM_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "import a_package_that_is_not_installed" in done.stderr


def test_two_plugins_that_claim_one_name_are_both_named(priorloom, tmp_path):
    install(tmp_path, "rival", RIVAL)
    done = priorloom("components", "show", "prior", "huber", extra=tmp_path)
    assert done.returncode == 1
    assert "'huber' (priorloom-huber) and 'rival' (priorloom-rival)" in done.stderr
    assert done.stderr.count("\n") == 1
    listed = json.loads(priorloom("components", "list", "--json", extra=tmp_path).stdout)["prior"]
    assert listed["huber"] == "huber, rival"
    assert listed["tv"] == "priors"
    settled = priorloom("components", "show", "prior", "huber", extra=tmp_path, PRIORLOOM_PLUGINS="huber")
    assert settled.returncode == 0, settled.stderr


def test_a_misspelt_hook_is_reported_with_the_right_name(priorloom, tmp_path):
    install(tmp_path, "misspelt", MISSPELT)
    done = priorloom("plugins", "--json", extra=tmp_path)
    (error,) = (p["error"] for p in json.loads(done.stdout) if p["name"] == "misspelt")
    assert "unknown hook 'priorloom_prior'; did you mean 'priorloom_priors'?" in error


def test_check_runs_the_conformance_kit_on_the_foreign_prior(priorloom):
    done = priorloom("check", "huber")
    assert done.returncode == 0, done.stderr
    assert "huber" in done.stdout


def test_the_tests_of_the_template_pass(site):
    template = HERE / "priorloom-huber"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:odl_plugins", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--rootdir", str(template), "-c", os.devnull, str(template / "tests")],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
