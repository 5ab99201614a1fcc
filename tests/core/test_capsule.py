"""The capsule: which files a comparison reads, what is compared with what tolerance, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from priorloom import Registry
from priorloom.capsule.contents import Capsule, CaseFacts, Row, read_capsule, to_json
from priorloom.capsule.environment import Environment, changes
from priorloom.capsule.reproduction import Reproduction, hold_against
from priorloom.capsule.sources import Source, SourceFile, absolute, find_again, moved, source
from priorloom.config import Plan, make_methods
from priorloom.errors import InputError
from priorloom.modality import slug
from priorloom.protocol.tuning import Tuning
from priorloom.reconstruction import Method

HERE = Environment(
    versions={"python": "3.11.7", "torch": "2.13.0"}, processor="a processor", machine="x86_64", capability="AVX2",
    library="glibc 2.36", variables={}, threads=2, device="cpu", system="Linux", cores=2,
)  # fmt: skip
FILE = {"name": "x", "bytes": 1, "sha256": "0" * 64}
IMAGE = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


def _npy(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, image)
    return stream.getvalue()


def _capsule(folder: Path, image: np.ndarray = IMAGE, environment: Environment = HERE, **row: Any) -> Capsule:
    """A capsule of one row in `folder`, with its image."""
    content = _npy(image)
    (folder / "images" / "disc").mkdir(parents=True)
    (folder / "images" / "disc" / "tv.npy").write_bytes(content)
    figures = {"psnr": 30.0, "ssim": 0.9, "nmse": 0.01, "iterations": 100, "outcome": "converged"} | row
    sha256 = hashlib.sha256(content).hexdigest()
    case = CaseFacts("disc", "toy", "0" * 64, "1" * 64)
    return Capsule(
        complete=True, command="priorloom compare", device="cpu", config="2" * 64, planned=1, sources=(), models=(),
        cases=(case,), rows=(Row("disc", "tv", sha256=sha256, **figures),), timed=(), environment=environment,
    )  # fmt: skip


def _held(tmp_path: Path, after: Environment = HERE, image: np.ndarray = IMAGE, **row: Any) -> Reproduction:
    """A recorded run with `IMAGE` held against one with other results."""
    folders = tmp_path / "before", tmp_path / "after"
    before = _capsule(folders[0], **{"outcome": row["outcome"]} if "outcome" in row else {})
    return hold_against(before, folders[0], _capsule(folders[1], image, after, **row), folders[1])


NEWER = dataclasses.replace(HERE, versions={**HERE.versions, "torch": "2.14.0"})


def test_the_same_bytes_are_identical_and_expected(tmp_path: Path) -> None:
    found = _held(tmp_path)
    assert (found.verdict, found.expected, found.as_expected) == ("identical", "identical", True)
    assert found.rows[0].image == 0


def test_the_last_digit_is_a_difference_in_the_same_environment(tmp_path: Path) -> None:
    other = IMAGE.copy()
    other[0, 0] = np.nextafter(other[0, 0], np.float32(2))
    found = _held(tmp_path, image=other)
    assert (found.verdict, found.as_expected) == ("within tolerance", False)
    size = float(np.sqrt((IMAGE.astype(float) ** 2).sum()))
    assert found.rows[0].image == pytest.approx(np.spacing(np.float32(1)) / size, rel=1e-6)


def test_another_version_is_a_reason_for_the_tolerance(tmp_path: Path) -> None:
    found = _held(tmp_path, NEWER, IMAGE * np.float32(1.001), psnr=30.01, iterations=108)
    assert found.reasons == ("torch 2.13.0 -> 2.14.0",)
    assert (found.verdict, found.expected, found.as_expected) == ("within tolerance", "within tolerance", True)
    assert found.rows[0].image == pytest.approx(1e-3, rel=1e-3)
    assert found.largest is found.rows[0]


@pytest.mark.parametrize(
    ("scale", "row", "said"),
    [
        (1.02, {}, "image 2.0e-02 > 0.01"),
        (1.0, {"psnr": 30.03}, "psnr 30 -> 30.03"),
        (1.0, {"psnr": None}, "psnr 30 -> none"),
        (1.0, {"ssim": 0.902}, "ssim"),
        (1.0, {"nmse": 0.0101}, "nmse"),
        (1.0, {"iterations": 113}, "iterations 100 -> 113"),
        (1.001, {"outcome": ""}, "image 1.0e-03 > 0.0001"),
        (1.0, {"outcome": "", "iterations": 101}, "iterations 100 -> 101"),
    ],
)
def test_beyond_the_tolerance_is_named(tmp_path: Path, scale: float, row: dict[str, Any], said: str) -> None:
    found = _held(tmp_path, NEWER, IMAGE * np.float32(scale), **row)
    assert (found.verdict, found.as_expected) == ("differs", False)
    assert any(said in text for text in found.rows[0].exceeded), found.rows[0].exceeded
    assert said in json.dumps(found.to_json(), allow_nan=False)


def test_another_outcome_is_a_difference(tmp_path: Path) -> None:
    before = _capsule(tmp_path / "a")
    after = _capsule(tmp_path / "b", environment=NEWER, outcome="growing")
    (row,) = hold_against(before, tmp_path / "a", after, tmp_path / "b").rows
    assert row.exceeded == ("outcome converged -> growing",)


def test_an_image_that_is_gone_changed_or_another_type_is_not_read(tmp_path: Path) -> None:
    before, after = _capsule(tmp_path / "a"), _capsule(tmp_path / "b", IMAGE * 2)
    stored = tmp_path / "a" / before.rows[0].image
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    header = b"\x93NUMPY\x01\x00"
    huge = header + (118).to_bytes(2, "little") + b"{'descr': '<f4', 'fortran_order': False, 'shape': (10**13,), }"
    for content in (None, b"", stored.read_bytes()[:-4], pickled.getvalue(), huge.ljust(200)):
        stored.unlink() if content is None else stored.write_bytes(content)
        digest = hashlib.sha256(content or b"").hexdigest()
        row = dataclasses.replace(before.rows[0], sha256=digest)
        (found,) = hold_against(dataclasses.replace(before, rows=(row,)), tmp_path / "a", after, tmp_path / "b").rows
        assert found.image is None
        assert "image: the recorded one is gone or was changed" in found.exceeded


def test_what_may_change_the_last_digits_is_told(tmp_path: Path) -> None:
    other = dataclasses.replace(HERE, threads=4, variables={"MKL_CBWR": "COMPATIBLE"}, system="Linux 7", cores=64)
    assert changes(HERE, other) == ["MKL_CBWR unset -> COMPATIBLE", "threads 2 -> 4"]
    assert changes(HERE, HERE) == []
    before, after = _capsule(tmp_path / "a"), _capsule(tmp_path / "b")
    timed = hold_against(dataclasses.replace(before, timed=("disc",)), tmp_path / "a", after, tmp_path / "b")
    assert timed.reasons == ("the operator of case 'disc' chooses by timing how it computes",)
    gpu = dataclasses.replace(HERE, device="a GPU")
    on_gpu = [dataclasses.replace(c, environment=gpu) for c in (before, after)]
    assert "GPU" in hold_against(on_gpu[0], tmp_path / "a", on_gpu[1], tmp_path / "b").reasons[0]
    case = dataclasses.replace(before.cases[0], measurement="3" * 64)
    told = hold_against(dataclasses.replace(before, cases=(case,)), tmp_path / "a", after, tmp_path / "b")
    assert told.changed == ("disc",)


def test_a_capsule_reads_back_equal(tmp_path: Path) -> None:
    capsule = _capsule(tmp_path)
    (tmp_path / "capsule.json").write_bytes(to_json(capsule))
    assert read_capsule(tmp_path) == capsule


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": [{"case": "../..", "method": "tv"}]}, "rows.0.case"),
        ({"planned": -1}, "planned"),
        ({"planned": "many"}, "planned"),
        ({"extra": 1}, "extra"),
        ({"complete": False}, "1 of 1 rows"),
        ({"planned": 2}, "1 of 2 rows"),
        ({"planned": 0, "rows": []}, "0 of 0 rows"),
        ({"cases": []}, "every row of a case once"),
        ({"schema": 2}, "install a newer priorloom"),
        ({"schema": 0}, "schema"),
        ({"sources": [{"setting": "input", "path": "/x", "files": []}]}, "sources.0.files"),
        ({"sources": [{"setting": "i", "path": "/x", "files": [{**FILE, "name": "../x"}]}]}, "sources.0.files.0.name"),
    ],
)  # fmt: skip
def test_a_broken_capsule_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    document = json.loads(to_json(_capsule(tmp_path))) | change
    (tmp_path / "capsule.json").write_text(json.dumps(document))
    with pytest.raises(InputError) as refused:
        read_capsule(tmp_path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_recorded_twice_is_refused(tmp_path: Path) -> None:
    capsule = _capsule(tmp_path)
    for change in ({"rows": capsule.rows * 2, "planned": 2}, {"cases": capsule.cases * 2}):
        (tmp_path / "capsule.json").write_bytes(to_json(dataclasses.replace(capsule, **change)))
        with pytest.raises(InputError, match="every case once"):
            read_capsule(tmp_path)


def test_a_row_can_be_named_as_any_method_can() -> None:
    for name in ("tv-pdhg", "a.b_c", "_x_", "9", "TV"):
        assert slug(name) == name
        Row(name, name, None, None, None, 0, "", "0" * 64)


def test_paths_of_a_plan_become_absolute_and_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    registry = Registry.discover()
    plan = Plan(
        modality="ct",
        case={"files": ["slice.npy"], "images": ["foam"]},
        methods=(Method("learned", {"model.path": "mine"}), Method("pnp-hqs", {"denoiser.name": "trained"}, "p")),
        settings={"p.denoiser.path": "net"},
        tuning=Tuning({"files": ["other.npy"]}),
    )
    rows = {"ct": [plan.methods[0], Method("pnp-hqs", {"denoiser.name": "trained", "denoiser.path": "net"}, "p")]}
    resolved, paths = absolute(plan, rows, registry)
    here = {name: str(tmp_path / name) for name in ("slice.npy", "mine", "net", "other.npy")}
    assert resolved.case == {"files": [here["slice.npy"]], "images": ["foam"]}
    assert resolved.methods[0].settings == {"model.path": here["mine"]}
    assert resolved.settings == {"p.denoiser.path": here["net"]}
    assert resolved.tuning == Tuning({"files": [here["other.npy"]]})
    assert {path for named in paths.values() for path in named} == set(here.values())
    places = {path: path.replace(str(tmp_path), "/elsewhere") for path in here.values()}
    there = moved(resolved, places)
    assert there.case["files"] == ["/elsewhere/slice.npy"]
    assert there.methods[0].settings == {"model.path": "/elsewhere/mine"}
    assert there.settings == {"p.denoiser.path": "/elsewhere/net"}
    assert there.tuning == Tuning({"files": ["/elsewhere/other.npy"]})


def test_options_of_a_reader_that_are_files_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("scan.cfl", "scan.hdr"):
        (tmp_path / name).write_text("# Dimensions\n8 8 1 2\n")
    plan = Plan(input=Path("scan.cfl"), options={"maps": "maps.cfl", "reader": "bart", "calibration": 24})
    resolved, paths = absolute(plan, {"mri": []}, Registry.discover())
    assert paths == {"input": (str(tmp_path / "scan.cfl"),), "input.maps": (str(tmp_path / "maps.cfl"),)}
    assert resolved.options == {"maps": str(tmp_path / "maps.cfl"), "reader": "bart", "calibration": 24}
    rows = make_methods(Plan(modality="mri"), Registry.discover(), ["mri"])
    assert absolute(Plan(modality="mri"), rows, Registry.discover()) == (Plan(modality="mri"), {})


def test_all_files_behind_a_path_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "scan.cfl").write_bytes(b"values")
    (tmp_path / "scan.hdr").write_bytes(b"sizes")
    (tmp_path / "scan.txt").write_bytes(b"notes of the operator")
    pair = source("input", tmp_path / "scan.cfl", (".cfl", ".hdr"))
    digests = [hashlib.sha256(text).hexdigest() for text in (b"values", b"sizes")]
    assert pair.files == (SourceFile("scan.cfl", 6, digests[0]), SourceFile("scan.hdr", 5, digests[1]))
    for version in ("1", "2"):
        (tmp_path / "model" / version).mkdir(parents=True)
        (tmp_path / "model" / version / "model.safetensors").write_bytes(version.encode())
    assert [f.name for f in source("model.path", tmp_path / "model").files] == ["model/2/model.safetensors"]
    (tmp_path / "series").mkdir()
    for name in ("b.dcm", "a.dcm", ".hidden"):
        (tmp_path / "series" / name).write_bytes(name.encode())
    assert [f.name for f in source("case.files", tmp_path / "series").files] == ["series/a.dcm", "series/b.dcm"]


def _source(folder: Path) -> Source:
    folder.mkdir(parents=True)
    (folder / "scan.cfl").write_bytes(b"values")
    (folder / "scan.hdr").write_bytes(b"sizes")
    return source("input", folder / "scan.cfl", (".cfl", ".hdr"))


def test_files_are_found_again_by_name_and_content(tmp_path: Path) -> None:
    item = _source(tmp_path / "home")
    assert find_again([item], None) == {item.path: item.path}
    decoy = tmp_path / "away" / "a"
    decoy.mkdir(parents=True)
    (decoy / "scan.cfl").write_bytes(b"VALUES")
    (tmp_path / "home").rename(tmp_path / "away" / "b")
    with pytest.raises(
        InputError, match=r"input .*scan.cfl: expected the file with sha256 .* got nothing there; .*--data"
    ):
        find_again([item], None)
    assert find_again([item], tmp_path / "away") == {item.path: str(tmp_path / "away" / "b" / "scan.cfl")}
    (tmp_path / "away" / "b" / "scan.hdr").write_bytes(b"Sizes")
    with pytest.raises(InputError, match="nothing there"):
        find_again([item], tmp_path / "away")
    with pytest.raises(InputError, match=r"--data .*: expected a folder"):
        find_again([item], tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"Sizes", b"size"], ids=["values", "size"])
def test_changed_data_are_refused_with_both_hashes(tmp_path: Path, content: bytes) -> None:
    item = _source(tmp_path / "home")
    (tmp_path / "home" / "scan.hdr").write_bytes(content)
    with pytest.raises(
        InputError, match=r"changed data: input .*scan.hdr: expected .*sha256 [0-9a-f]{12}, got .*--data"
    ):
        find_again([item], None)


def test_a_file_more_in_a_folder_is_a_change(tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    (series / "a.dcm").write_bytes(b"a")
    item = source("case.files", series)
    assert find_again([item], None) == {str(series): str(series)}
    (series / "b.dcm").write_bytes(b"b")
    with pytest.raises(InputError, match=r"changed data: case.files .*got b.dcm too"):
        find_again([item], None)
