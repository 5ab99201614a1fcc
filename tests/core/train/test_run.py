"""Training end to end: what it learns, that it can be killed and resumed, and how it fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from priorloom import Registry
from priorloom.errors import DivergenceError, InputError
from priorloom.models import load_model
from priorloom.train.checkpoint import load as load_checkpoint
from priorloom.train.config import load
from priorloom.train.evaluate import evaluate
from priorloom.train.losses import make_loss
from priorloom.train.record import Point, read
from priorloom.train.run import train
from priorloom.train.sources import make_sides

from .conftest import TINY

NAME = "ct.learned-proximal-gradient"


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_training_lowers_the_validation_loss_and_writes_a_model_that_loads(
    config: Any, registry: Registry, tmp_path: Path
) -> None:
    seen: list[Point] = []
    plan = load(config(steps=40, validate_every=20, optimiser={"learning_rate": 3e-3, "ema": 0.9}))
    done = train(plan, registry, tmp_path / "out", watch=seen.append)

    validated = [p.validation_loss for p in seen if p.validation_loss is not None]
    start = train(load(config(steps=1, optimiser={"learning_rate": 1e-9})), registry, tmp_path / "start")
    assert validated[-1] < 0.9 * load_checkpoint(tmp_path / "start/checkpoints/last.pt").best_loss  # type: ignore[operator]
    assert start.step == 1
    assert done.folder == tmp_path / "out" / NAME / "1"
    assert (done.step, done.chosen) == (40, load_checkpoint(tmp_path / "out/checkpoints/best.pt").best_step)

    A = registry.operator("ct.parallel2d", image_shape=(16, 16), pixel_size=4.0, views=12)
    model = load_model(done.folder, registry, A)
    assert bool(model(A, torch.ones(A.range.shape), 0.1).isfinite().all())
    card = json.loads((done.folder / "card.json").read_text())
    assert card["scope"]["operator"] == "ct.parallel2d"
    assert card["scope"]["ranges"]["views"] == [12, 12]
    assert card["learning"]["steps"] == 40
    assert [m["cases"] for m in card["metrics"]] == [2, 2]
    assert [s["name"] for s in card["learning"]["training"]] == ["ellipses"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    config: Any, registry: Registry, tmp_path: Path
) -> None:
    made = [
        weights(train(load(config(), [f"seed={seed}"]), registry, tmp_path / str(i)).folder)
        for i, seed in enumerate((0, 0, 1))
    ]
    assert made[0] == made[1]
    assert made[0] != made[2]


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from priorloom import Registry
from priorloom.train.config import load
from priorloom.train.run import train

def watch(point):
    if point.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(int(sys.argv[3]))
train(load(Path(sys.argv[1])), Registry.discover(), Path(sys.argv[2]), watch=watch)
"""


def test_kill_9_in_the_middle_then_resume_is_bit_equal(config: Any, registry: Registry, tmp_path: Path) -> None:
    path = config(steps=16, validate_every=5, checkpoint_every=3, patience=50)
    whole = train(load(path), registry, tmp_path / "whole")

    out, last = tmp_path / "killed", tmp_path / "killed/checkpoints/last.pt"
    command = [sys.executable, "-c", KILLED, str(path), str(out), str(torch.get_num_threads())]
    process = subprocess.run(command, capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert load_checkpoint(last).step == 6  # two steps were done since, and are done again
    assert [p.step for p in read(out / "log.csv")][-1] == 8

    resumed = train(load(path), registry, out, resume=True)
    assert resumed.step == whole.step == 16
    assert weights(resumed.folder) == weights(whole.folder)
    ours, theirs = load_checkpoint(last), load_checkpoint(tmp_path / "whole/checkpoints/last.pt")
    for name in theirs.weights:
        assert torch.equal(ours.weights[name], theirs.weights[name])
        assert torch.equal(ours.mean[name], theirs.mean[name])  # type: ignore[index]
    for key, state in theirs.optimiser["state"].items():
        assert all(torch.equal(value, ours.optimiser["state"][key][name]) for name, value in state.items())
    assert [p.step for p in read(out / "log.csv")] == [p.step for p in read(tmp_path / "whole/log.csv")]
    losses = [[p.loss for p in read(run / "log.csv")] for run in (out, tmp_path / "whole")]
    assert losses[0] == losses[1]


def test_ctrl_c_finishes_the_step_and_resume_goes_on(config: Any, registry: Registry, tmp_path: Path) -> None:
    def interrupt(point: Point) -> None:
        if point.step == 5:
            signal.raise_signal(signal.SIGINT)

    plan = load(config(checkpoint_every=100, validate_every=100))
    before = signal.getsignal(signal.SIGINT)  # a shell's background job ignores it
    with pytest.raises(KeyboardInterrupt):
        train(plan, registry, tmp_path / "a", watch=interrupt)
    assert load_checkpoint(tmp_path / "a/checkpoints/last.pt").step == 5
    assert threading.current_thread() is threading.main_thread()
    assert signal.getsignal(signal.SIGINT) is before
    resumed = train(plan, registry, tmp_path / "a", resume=True)
    assert weights(resumed.folder) == weights(train(plan, registry, tmp_path / "b").folder)


def test_early_stopping_waits_for_patience(config: Any, registry: Registry, tmp_path: Path) -> None:
    # A rate that lowers the training loss of one subject is no matter: with a rate of nothing, nothing gets better.
    plan = load(config(steps=50, validate_every=2, patience=3, optimiser={"learning_rate": 1e-30, "ema": None}))
    done = train(plan, registry, tmp_path / "out")
    assert (done.step, done.chosen) == (8, 2)


def test_a_budget_ends_the_run_and_the_schedule(config: Any, registry: Registry, tmp_path: Path) -> None:
    seen: list[Point] = []
    done = train(load(config(steps=100_000)), registry, tmp_path / "out", budget=1.5, watch=seen.append)
    assert 0 < done.step < 100_000
    assert seen[-1].seconds >= 1.5
    assert seen[-1].learning_rate < 0.1 * seen[0].learning_rate


def test_bf16_is_for_networks_and_not_for_physics(
    config: Any, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = type(registry.operator("ct.parallel2d", image_shape=(16, 16), pixel_size=4.0, views=12))
    physics: set[Any] = set()
    networks: set[Any] = set()
    training = {"now": False}

    def spied(own: Any) -> Any:
        def apply(self: Any, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = own(self, x)
            physics.update({x.dtype, made.dtype, torch.is_autocast_enabled("cpu")})
            return made

        return apply

    for name in ("_forward", "_adjoint"):
        monkeypatch.setattr(operator, name, spied(getattr(operator, name)))

    def spy(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(module, torch.nn.Conv2d) and training["now"]:
            networks.add(output.dtype)

    def started(point: Point) -> None:
        training["now"] = point.step < 4

    handle = torch.nn.modules.module.register_module_forward_hook(spy)
    try:
        for precision, expected in (("bf16", torch.bfloat16), (32, torch.float32)):
            networks.clear()
            plan = load(config(steps=4, validate_every=2, optimiser={"precision": precision}))
            train(plan, registry, tmp_path / str(precision), watch=started)
            assert networks == {expected}
            assert physics == {torch.float32, False}
    finally:
        handle.remove()


def test_the_card_tells_what_inference_in_single_precision_reaches(
    config: Any, registry: Registry, tmp_path: Path
) -> None:
    plan = load(config(optimiser={"precision": "bf16"}))
    done = train(plan, registry, tmp_path / "out")
    sides = make_sides(plan, registry)
    assert sides.validation is not None
    modality = registry.modality("ct")
    model = load_model(done.folder, registry, sides.validation[0].operator)
    figures = evaluate(model, sides.validation, make_loss(plan.loss, modality), modality, torch.device("cpu"))
    during = load_checkpoint(tmp_path / "out/checkpoints/best.pt").best_metrics
    for metric in done.card.metrics:
        off = abs(during[metric.name] - figures[metric.name])  # in bfloat16
        assert abs(metric.value - figures[metric.name]) < 0.1 * off, (metric, figures, during)


def test_a_model_of_the_objective_is_certified_as_it_runs(config: Any, registry: Registry, tmp_path: Path) -> None:
    """Safeguarded layers choose between images, and have no Lipschitz bound."""
    architecture = {"name": "learned-ista", "layers": 2}
    plans = [load(config(architecture=architecture, steps=1, loss={loss: 1.0})) for loss in ("objective", "mse")]
    guarded, plain = (train(p, registry, tmp_path / str(i)).card for i, p in enumerate(plans))
    assert guarded.safeguarded
    assert not plain.safeguarded
    assert guarded.certificate.lipschitz is None
    assert plain.certificate.lipschitz is not None


def test_a_weight_that_is_not_finite_stops_with_batch_and_layer(
    config: Any, registry: Registry, tmp_path: Path
) -> None:
    plan = load(config())
    train(load(config(steps=2)), registry, tmp_path / "out")
    last = tmp_path / "out/checkpoints/last.pt"
    progress = load_checkpoint(last)
    name = next(n for n in progress.weights if n.startswith("layers.1.") and n.endswith("convolutions.0.weight"))
    progress.weights[name].view(-1)[0] = torch.inf
    from priorloom.train.checkpoint import save

    save(last, progress)
    with pytest.raises(DivergenceError, match=rf"batch 2: .* layer 2 of 2 \(Layer\): {name}.*last\.pt"):
        train(plan, registry, tmp_path / "out", resume=True)


def test_an_overflow_inside_names_the_first_layer(config: Any, registry: Registry, tmp_path: Path) -> None:
    plan = load(config(optimiser={"learning_rate": 1e30, "gradient_clip": None, "ema": None}, validate_every=100))
    with pytest.raises(DivergenceError, match=r"batch \d+: .*(layer \d of 2|weights)") as caught:
        train(plan, registry, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert "optimiser.learning_rate" in str(caught.value)


def test_a_finished_folder_is_not_trained_over(config: Any, registry: Registry, tmp_path: Path) -> None:
    plan = load(config(steps=2))
    train(plan, registry, tmp_path / "out")
    with pytest.raises(InputError, match="add --resume"):
        train(plan, registry, tmp_path / "out")


def test_resuming_another_config_is_refused(config: Any, registry: Registry, tmp_path: Path) -> None:
    train(load(config(steps=2)), registry, tmp_path / "out")
    with pytest.raises(InputError, match="another batch_size"):
        train(load(config(steps=4, batch_size=3)), registry, tmp_path / "out", resume=True)


def test_more_steps_may_be_added(config: Any, registry: Registry, tmp_path: Path) -> None:
    first = train(load(config(steps=4)), registry, tmp_path / "out")
    second = train(load(config(steps=6)), registry, tmp_path / "out", resume=True)
    assert (first.folder.name, second.folder.name, second.step) == ("1", "2", 6)


def test_resuming_without_a_mean_keeps_the_weights_themselves(config: Any, registry: Registry, tmp_path: Path) -> None:
    data = {"train": [{"subject": "ellipses", "phantom": "ellipses"}]}  # not validated: the last weights are kept
    train(load(config(steps=4, data=data)), registry, tmp_path / "out")
    last = tmp_path / "out/checkpoints/last.pt"
    assert load_checkpoint(last).mean is not None
    done = train(load(config(steps=8, data=data, optimiser={"ema": None})), registry, tmp_path / "out", resume=True)
    progress = load_checkpoint(last)
    assert progress.mean is None
    kept = load_file(done.folder / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in progress.weights.items() if name in kept)


def test_resuming_with_another_weight_decay_uses_it(config: Any, registry: Registry, tmp_path: Path) -> None:
    train(load(config(steps=2)), registry, tmp_path / "out")
    plan = load(config(steps=4, optimiser={"weight_decay": 0.5}))
    train(plan, registry, tmp_path / "out", resume=True)
    groups = load_checkpoint(tmp_path / "out/checkpoints/last.pt").optimiser["param_groups"]
    assert [g["weight_decay"] for g in groups] == [0.5]


def test_nothing_to_resume(config: Any, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train without --resume"):
        train(load(config()), registry, tmp_path / "out", resume=True)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04\x95"])
def test_a_damaged_checkpoint(content: bytes, config: Any, registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "out/checkpoints/last.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match="a damaged file"):
        train(load(config()), registry, tmp_path / "out", resume=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "2"),
        ("step", -1),
        ("seconds", float("nan")),
        ("weights", [1.0]),
        ("weights", {"layers.0": 1.0}),
        ("weights", {"layers.0": torch.ones(2)}),
        ("mean", {}),
        ("best", {"a": None}),
        ("best_loss", "low"),
        ("best_metrics", {"psnr": "high"}),
        ("optimiser", {"state": {}}),
        ("optimiser", {"state": {}, "param_groups": [{"params": [0]}]}),
        ("facts", {"views": 3}),
        ("facts", {"views": [3, "three"]}),
        ("noise_std", [1.0]),
        ("settings", "no JSON"),
        ("settings", "[]"),
    ],
)
def test_a_checkpoint_with_garbage_in_it(
    name: str, value: Any, trained: Path, config: Any, registry: Registry, tmp_path: Path
) -> None:
    """Every value is checked, not only the names."""
    stored = torch.load(trained, weights_only=True)
    last = tmp_path / "out/checkpoints/last.pt"
    last.parent.mkdir(parents=True)
    torch.save({**stored, name: value}, last)
    with pytest.raises(InputError, match=rf"^checkpoint {last}: expected ") as caught:
        train(load(config(steps=4)), registry, tmp_path / "out", resume=True)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def trained(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "steps": 2}))
    train(load(folder / "tiny.yaml"), registry, folder / "out")
    return folder / "out/checkpoints/last.pt"


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"step": Trap()}, path)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(path)
    assert not Trap.sprung


class Trap:
    """Unpickling it would set the flag."""

    sprung = False

    def __reduce__(self) -> Any:
        return _spring, ()


def _spring() -> None:
    Trap.sprung = True


def test_missing_extra_is_one_line(config: Any, registry: Registry, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    monkeypatch.delitem(sys.modules, "priorloom.train.lightning", raising=False)
    with pytest.raises(InputError, match=r"pip install 'priorloom\[train\]'"):
        train(load(config()), registry, tmp_path / "out")


def test_a_flipped_bit_in_a_checkpoint_is_noticed(config: Any, registry: Registry, tmp_path: Path) -> None:
    plan = load(config())
    train(plan, registry, tmp_path / "a")
    last = tmp_path / "a/checkpoints/last.pt"
    content = bytearray(last.read_bytes())
    tensor = load_checkpoint(last).weights
    needle = next(iter(tensor.values())).numpy().tobytes()
    content[content.index(needle)] ^= 1
    last.write_bytes(content)
    with pytest.raises(InputError, match="expected a checkpoint, got a damaged file"):
        load_checkpoint(last)
