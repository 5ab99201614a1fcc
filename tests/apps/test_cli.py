"""The command line from the outside: what it writes, what it prints, and how it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from priorloom import Registry, Scan
from priorloom.bundle import write
from priorloom.config import Plan
from priorloom.reconstruction import Method
from priorloom_apps.compare import run_comparison

from .conftest import GEOMETRY, Cli

ROW_KEYS = {
    "modality", "case", "method", "kind", "psnr", "ssim", "nmse", "data_range", "seconds", "iterations", "residual",
    "converged", "parameters", "tuned", "certificate", "image",
}  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["bench", "--help"], ["components", "list"], ["plugins"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom priorloom_apps.cli import main\n"
        f"sys.argv = ['priorloom', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'odl', 'astra', 'numpy', 'skimage', 'h5py', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compare_writes_the_contract(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = ["--set", "case.images=[foam]", "--set", "case.image_shape=[32,32]"]
    run = cli("compare", "-m", "ct", "--method", "fbp", "--method", "tv-pdhg", *small, "--out", out, "--seed", 3)
    assert run.code == 0, run.err
    document = json.loads((out / "results.json").read_text())
    assert document["schema"] == 1
    assert document["seed"] == 3
    assert document["versions"]["torch"]
    assert [row["method"] for row in document["rows"]] == ["fbp", "tv-pdhg"]
    for row in document["rows"]:
        assert row.keys() >= ROW_KEYS
        image = np.load(out / row["image"], allow_pickle=False)
        assert image.shape == (32, 32)
        assert (out / row["image"]).with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    fbp, tv = document["rows"]
    assert fbp["kind"] == "direct"
    assert fbp["converged"] is None
    assert tv["converged"] is True
    assert tv["parameters"]["prior.lam"] > 0
    assert tv["psnr"] > fbp["psnr"]
    assert "tv-pdhg" in run.out
    assert not list(out.rglob("*.tmp"))


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "data") and v]


def test_report_asks_for_nothing_outside(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    run = cli("compare", "--input", scan_file, "--method", "fbp", "--out", tmp_path / "out")
    assert run.code == 0, run.err
    page = (tmp_path / "out" / "report.html").read_text()
    links = _Links()
    links.feed(page)
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "Content-Security-Policy" in page


def test_same_seed_same_bytes(cli: Cli, tmp_path: Path) -> None:
    for name in ("a", "b"):
        small = ["--set", "case.images=[foam]", "--set", "case.image_shape=[32,32]"]
        cli("compare", "-m", "ct", "--method", "fbp", *small, "--out", tmp_path / name)
    images = [(tmp_path / n / "images" / "foam" / "fbp.npy").read_bytes() for n in ("a", "b")]
    assert images[0] == images[1]


def test_compare_runs_a_config_file(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    config = tmp_path / "plan.yaml"
    config.write_text(
        "input: disc.npz\nmethods:\n  - fbp\n  - {method: tv-pdhg, label: tv-strong, prior: {lam: 0.5}, "
        "solver: {tolerance: 1e-3}}\n"
    )
    run = cli("compare", config, "--out", tmp_path / "out", "--set", "tv-strong.solver.max_iterations=3000")
    assert run.code == 0, run.err
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [r["method"] for r in rows] == ["fbp", "tv-strong"]
    assert rows[1]["parameters"]["prior.lam"] == 0.5
    assert rows[1]["parameters"]["solver.max_iterations"] == 3000
    assert rows[1]["tuned"] == "given"
    assert rows[0]["psnr"] is None
    assert "no truth" in run.out


def test_reconstruct_gives_the_units_back(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    run = cli("reconstruct", scan_file, "--modality", "ct", "--method", "fbp", "--out", out)
    assert run.code == 0, run.err
    image = np.load(out)
    assert image.shape == (32, 32)
    assert abs(image[14:18, 14:18].mean() / 0.02 - 1) < 0.02
    picture = cli("reconstruct", scan_file, "--method", "fbp", "--out", tmp_path / "x.png")
    assert picture.code == 0, picture.err
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_mask_that_samples_nothing(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "empty.npz"
    maps = np.ones((2, 8, 8), np.complex64)
    write(path, Scan("mri", "mri.sense2d", {"maps": maps, "mask": np.zeros((8, 8), bool)}, 0 * maps))
    run = cli("reconstruct", path, "--method", "zero-filled", "--out", tmp_path / "x.npy")
    assert run.code == 2
    assert run.err.count("\n") == 1
    assert "at least one sample" in run.err


def test_every_parameter_of_every_component_has_help(cli: Cli) -> None:
    listed = json.loads(cli("components", "list", "--json").out)
    silent = []
    for kind, names in listed.items():
        for name in names:
            shown = json.loads(cli("components", "show", kind, name, "--json").out)
            silent += [f"{kind} {name}: {p['name']}" for p in shown["parameters"] if not p["help"]]
    assert not silent


def test_components_and_plugins_as_json(cli: Cli) -> None:
    listed = json.loads(cli("components", "list", "--json").out)
    assert "ct.parallel2d" in listed["operator"]
    assert listed["prior"]["tv"] == "priors"
    shown = json.loads(cli("components", "show", "pipeline", "tv-pdhg", "--json").out)
    assert {"prior.lam", "prior.name", "solver.max_iterations", "solver.tolerance"} <= {
        p["name"] for p in shown["parameters"]
    }
    assert all(p["help"] for p in shown["parameters"]), [p["name"] for p in shown["parameters"] if not p["help"]]
    found = json.loads(cli("plugins", "--json").out)
    assert {p["name"]: p["error"] for p in found}.items() >= dict.fromkeys(["core", "ct", "mri", "priors"]).items()


@pytest.mark.parametrize("arguments", [[], ["components"]])
def test_help_is_the_answer_to_nothing(cli: Cli, arguments: list[str]) -> None:
    run = cli(*arguments)
    assert run.code == 0
    assert "Usage" in run.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--nonsense"], "--nonsense"),
        (["compare", "--seed", "much"], "--seed"),
        (["reconstruct"], "input"),
        (["unweave"], "unweave"),
        (["components", "show", "priors", "tv"], "did you mean 'prior'?"),
        (["components", "show", "prior", "tvv"], "did you mean 'tv'?"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(cli: Cli, arguments: list[str], said: str) -> None:
    run = cli(*arguments)
    assert run.code == 2
    assert run.err.count("\n") == 1, run.err
    assert said in run.err


REFUSED: list[tuple[str, list[str], str]] = [
    ("unknown method", ["--method", "tv-pdgh"], "did you mean 'tv-pdhg'?"),
    ("unknown modality", ["-m", "pet"], "unknown modality 'pet'"),
    ("unknown setting", ["--set", "prior.lamb=1"], "did you mean 'prior.lam'?"),
    ("negative lam", ["--method", "tv-pdhg", "--set", "prior.lam=-1"], "lam"),
    ("lam of the wrong type", ["--method", "tv-pdhg", "--set", "prior.lam=much"], "expected float"),
    ("no iterations", ["--method", "tv-pdhg", "--set", "solver.max_iterations=0"], "solver.max_iterations"),
    ("tolerance zero", ["--method", "tv-pdhg", "--set", "solver.tolerance=0"], "solver.tolerance"),
    ("not an assignment", ["--set", "prior.lam"], "KEY=VALUE"),
    ("no such input", ["--input", "nowhere.npz"], "nothing there"),
    ("no such config", ["nowhere.yaml"], "readable YAML"),
    ("method of another modality", ["-m", "ct", "--method", "cg-sense"], "cg-sense"),
    ("unknown case setting", ["-m", "ct", "--set", "case.photon=1"], "did you mean 'case.photons'?"),
    ("case setting of neither", ["--set", "case.nonsense=1"], "case.nonsense"),
    ("operator without a modality", ["--set", "operator.views=10"], "--modality"),
    ("unknown operator parameter", ["-m", "ct", "--set", "operator.view=10"], "did you mean 'views'?"),
    ("unknown component", ["--method", "tv-pdhg", "--set", "prior.name=huberr"], "unknown prior 'huberr'"),
    ("true is no number", ["--method", "tv-pdhg", "--set", "prior.lam=true"], "expected float"),
    ("no images", ["-m", "ct", "--set", "case.images=[]"], "case.images"),
    ("images beyond memory", ["-m", "ct", "--set", "case.image_shape=[100000,100000]"], "case.image_shape"),
    ("coils beyond memory", ["-m", "mri", "--set", "case.coils=1000000"], "case.coils"),
    ("views beyond memory", ["-m", "ct", "--set", "operator.views=1000000000"], "views"),
    ("angles beyond sense", ["-m", "ct", "--set", "operator.angles_deg=[0,1e30]"], "angles_deg"),
    ("pixels beyond sense", ["-m", "ct", "--set", "operator.pixel_size=1e30"], "pixel_size"),
    ("operator name that is none", ["--set", "operator.name=3"], "operator.name"),
    ("seed too large", ["--seed", "99999999999999999999999"], "seed"),
    ("device as config", ["/dev/zero"], "a YAML file"),
    ("unknown device", ["--device", "tpu", "--method", "fbp"], "cpu or cuda"),
    ("acceleration beyond the lines", ["-m", "mri", "--set", "case.acceleration=1e9"], "acceleration"),
]


@pytest.mark.parametrize(("arguments", "said"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_bad_input_is_one_line_and_exit_2(cli: Cli, tmp_path: Path, arguments: list[str], said: str) -> None:
    run = cli("compare", *arguments, "--out", tmp_path / "out")
    assert run.code == 2, run.err
    assert run.err.count("\n") == 1, run.err
    assert said in run.err
    assert not list((tmp_path / "out").rglob("*.npy"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("methods: [&a {method: fbp, sub: *a}]", "deep"),
        ("a: " + "[" * 3000, "levels"),
        ("a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]", "values"),
        ("method: fbp", "did you mean 'methods'?"),
        ("methods: [{method: tv-pdhg, prior: {lam: 1}, prior.lam: 2}]", "got two"),
        ("methods: [{method: fbp, label: ../../x}]", "file name"),
        ("methods: [{method: fbp, label: ''}]", "label"),
        ("methods: []", "at least one"),
        ("seed: yes", "seed"),
        ("[1, 2]", "a mapping"),
        ("a: b: c", "YAML"),
        ("input: {every: 2}", "file"),
    ],
)  # fmt: skip
def test_bad_configs_are_one_line_and_exit_2(cli: Cli, tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "plan.yaml"
    config.write_text(text)
    run = cli("compare", config, "-m", "ct", "--out", tmp_path / "out")
    assert run.code == 2, run.err
    assert run.err.count("\n") == 1, run.err
    assert said in run.err


def test_another_grid_has_no_truth(cli: Cli, tmp_path: Path, sinogram: np.ndarray) -> None:
    path = tmp_path / "truth.npz"
    truth = np.tril(np.full((32, 32), 0.02, np.float32))
    write(path, Scan("ct", "ct.parallel2d", GEOMETRY, sinogram, truth))
    assert " dB" in cli("reconstruct", path, "--method", "fbp", "--out", tmp_path / "x.npy").out
    moved = cli("reconstruct", path, "--method", "fbp", "--set", "operator.offset=1.0", "--out", tmp_path / "x.npy")
    assert moved.code == 0
    assert " dB" not in moved.out


def test_output_through_a_link_keeps_the_link(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.npy").symlink_to(tmp_path / "real" / "x.npy")
    assert cli("reconstruct", scan_file, "--method", "fbp", "--out", tmp_path / "link.npy").code == 0
    assert (tmp_path / "link.npy").is_symlink()
    assert np.load(tmp_path / "real" / "x.npy").shape == (32, 32)


def test_check_refuses_what_it_would_ignore(cli: Cli) -> None:
    assert cli("check", "ct", "--set", "case.photons=7").code == 2
    assert cli("check", "tv", "--kind", "denoiser").code == 2
    passed = cli("check", "ct.parallel2d", "--set", "operator.views=7")
    assert passed.code == 0, passed.err
    assert "passed" in passed.out


def _bundle(path: Path, measurement: np.ndarray, **changes: object) -> Path:
    write(path, Scan("ct", "ct.parallel2d", {**GEOMETRY, **changes}, measurement))
    return path


def _cut(path: Path, length: int) -> Path:
    path.write_bytes(path.read_bytes()[:length] if path.exists() else b"")
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p, y: _bundle(p, y[:20]), "[24, 47]"),
        (lambda p, y: _bundle(p, np.where(y == y.max(), np.nan, y)), "NaN"),
        (lambda p, y: _bundle(p, y.astype(np.complex64)), "real numbers"),
        (lambda p, y: _bundle(p, y, views=None, angles_deg=tuple(range(10))), "[10, 47]"),
        (lambda p, y: _cut(p, 0), "empty"),
        (lambda p, y: _cut(_bundle(p, y), 300), "truncated"),
    ],
    ids=["shape", "nan", "complex", "angles", "empty", "truncated"],
)
def test_bad_files_are_one_line_and_exit_2(cli: Cli, tmp_path: Path, sinogram: np.ndarray, make, said: str) -> None:
    path = make(tmp_path / "bad.npz", sinogram)
    out = tmp_path / "x.npy"
    run = cli("reconstruct", path, "--method", "fbp", "--out", out)
    assert run.code == 2, run.err
    assert run.err.count("\n") == 1, run.err
    assert said in run.err
    assert not out.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["bad.npz"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_that_cannot_be_written_as_a_user(cli: Cli, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    run = cli("compare", "-m", "ct", "--out", tmp_path / "out")
    assert run.code == 2
    assert "cannot be written" in run.err or "can be written" in run.err


def test_output_below_a_file_is_refused_before_the_work(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    run = cli("compare", "-m", "ct", "--out", tmp_path / "file" / "out")
    assert run.code == 2
    assert run.err.count("\n") == 1
    assert "--out" in run.err


def test_an_older_result_survives_a_failing_run(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    assert cli("reconstruct", scan_file, "--method", "fbp", "--out", out).code == 0
    before = out.read_bytes()
    assert cli("reconstruct", scan_file, "--method", "tv-pdhg", "--set", "prior.lam=-1", "--out", out).code == 2
    assert out.read_bytes() == before


def test_a_path_that_is_no_text_stands_in_the_report_with_a_mark(scan_file: Path, tmp_path: Path) -> None:
    command = f"priorloom compare --out {os.fsdecode(bytes([255]))}"
    run_comparison(Plan(input=scan_file, methods=(Method("fbp"),)), Registry.discover(), tmp_path, command=command)
    assert "priorloom compare --out ?" in (tmp_path / "report.html").read_text()


def test_what_an_older_run_left_is_named(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for method in ("fbp", "cgls"):
        run = cli("compare", "--input", scan_file, "--method", method, "--out", out)
        assert run.code == 0, run.err
        said = "".join(run.out.splitlines())
        assert ("what is not of this run" in said) == (method == "cgls")
    assert "images/disc/fbp.npy, images/disc/fbp.png" in said
    assert "images/disc/cgls" not in said
    assert (out / "images" / "disc" / "fbp.npy").exists()


def test_debug_shows_the_traceback(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from priorloom.errors import InputError
    from priorloom_apps.cli import main

    monkeypatch.setattr(sys, "argv", ["priorloom", "compare", "-m", "pet", "--out", str(tmp_path), "--debug"])
    with pytest.raises(InputError):
        main()


def test_interrupt_keeps_what_is_finished(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from priorloom_apps import compare as app

    real = app.compare

    def stop_after_one(cases, methods, *, on_result, **keywords):  # the user presses Ctrl-C when the first is done
        def once(case, result) -> None:
            on_result(case, result)
            raise KeyboardInterrupt

        return real(cases, methods, on_result=once, **keywords)

    monkeypatch.setattr(app, "compare", stop_after_one)
    small = ["--set", "case.images=[foam]", "--set", "case.image_shape=[32,32]"]
    run = cli("compare", "-m", "ct", *small, "--out", tmp_path / "out")
    assert run.code == 1
    assert "what was finished is kept" in run.err
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [r["method"] for r in rows] == ["fbp"]


def test_cuda_is_refused_in_one_line_where_there_is_none(cli: Cli, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    run = cli("compare", "-m", "ct", "--method", "fbp", "--device", "cuda", "--out", tmp_path / "out")
    assert run.code == 2
    assert "--device cpu" in run.err


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: not enough memory: you tried to "
            "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 10 GiB"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_one_line(cli: Cli, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("priorloom_apps.compare.run_comparison", fail)
    refused = cli("compare")
    assert refused.code == 1
    assert refused.err.startswith("priorloom: out of memory")
    assert refused.err.count("\n") == 1
