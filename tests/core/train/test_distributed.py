"""Two processes on the CPU: they take the same steps at the same rates, and stop together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from priorloom.train.checkpoint import load as load_checkpoint

SCRIPT = """
import json, os, signal, sys, time, torch
from pathlib import Path
from types import SimpleNamespace
from priorloom import Registry
from priorloom.errors import DivergenceError
from priorloom.train import lightning
from priorloom.train.config import load
from priorloom.train.run import train

torch.set_num_threads(1)
config, out, bad = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rank = int(os.environ.get("LOCAL_RANK", "0"))
clock = [0.0]
def monotonic():  # the second process believes that time runs a hundred times faster
    clock[0] += 100.0 if rank else 1.0
    return clock[0]
lightning.time = SimpleNamespace(monotonic=monotonic)
rates, own = [], lightning._Module._learning_rate
def rate(self, step):
    rates.append(own(self, step))
    return rates[-1]
lightning._Module._learning_rate = rate
step = lightning._Module.training_step
def training_step(self, batch, index):
    if rank and self.progress.step == 4:
        signal.raise_signal(signal.SIGINT)
    if rank and self.progress.step == bad:
        batch.measurement.fill_(torch.nan)
    return step(self, batch, index)
lightning._Module.training_step = training_step
said = "nothing"
try:
    train(load(config), Registry.discover(), out, budget=50.0, devices=2)
except (KeyboardInterrupt, DivergenceError) as error:
    said = f"{type(error).__name__} {error}"
except SystemExit:
    said = "helper"
finally:
    (out / f"rank{rank}.json").write_text(json.dumps([rates, said]))
"""


def test_one_clock_and_one_end(config: Any, tmp_path: Path) -> None:
    rates, said = run(config, tmp_path, bad=-1)
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 3  # the cosine over the budget
    assert said[0].startswith("KeyboardInterrupt")  # though it was the other process that was interrupted
    assert load_checkpoint(tmp_path / "out/checkpoints/last.pt").step == 5


def test_a_loss_that_is_not_finite_in_one_process_ends_both(config: Any, tmp_path: Path) -> None:
    _, said = run(config, tmp_path, bad=2)
    assert said[0].startswith("DivergenceError training diverged at batch 5:")  # 2 steps of 2 batches, and its own


def run(config: Any, tmp_path: Path, bad: int) -> tuple[list[list[float]], list[str]]:
    """What the processes did, and how they ended; a batch of the second one may be not finite."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    out.mkdir()
    path = config(steps=12, validate_every=100, log_every=1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, str(script), str(path), str(out), str(bad)], capture_output=True, text=True, check=False,
        timeout=120, env=environment,
    )  # fmt: skip

    files = [out / f"rank{rank}.json" for rank in (0, 1)]
    assert files[0].exists(), done.stderr
    found = [json.loads(f.read_text()) if f.exists() else [[], "gone"] for f in files]
    return [f[0] for f in found], [f[1] for f in found]
