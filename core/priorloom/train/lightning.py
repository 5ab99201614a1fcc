"""The adapter to pytorch-lightning, which runs the loop: devices, precision, distribution. Nothing of it leaves here.

What must survive a kill is our own: checkpoints, the schedule, the running mean and early stopping are functions of
`Progress`, and batch n of (seed, n) alone, so that a resumed run takes the very steps of an uninterrupted one.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import DivergenceError, InputError
from ..modality import Batch, Modality
from ..operator import LinearOperator
from ..unrolled import Unrolled
from .checkpoint import Progress, Weights, load_optimiser, save
from .config import Optimiser
from .diverged import check_gradients, diverged
from .environment import accelerator, ctrl_c, quiet
from .evaluate import evaluate
from .losses import Loss
from .record import Log, Point, Watch

if TYPE_CHECKING:
    import pytorch_lightning as pl
else:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its imports say is not for our users
            import pytorch_lightning as pl
    except ImportError as error:
        raise InputError(
            "training needs the package pytorch-lightning", cure="pip install 'priorloom[train]'"
        ) from error


@dataclass(frozen=True)
class Run:
    """One training as the loop sees it.

    Parameters
    ----------
    batches, validation
        Batch by number, and the batches of every validation (None: no validation).
    loss, modality, optimiser
        What is minimised, how images are shown, and how it is minimised.
    steps, validate_every, patience, checkpoint_every, log_every, seed
        As in the config.
    budget
        Seconds in all, or None.
    folder
        Where checkpoints and the log are kept.
    watch
        Told every point of the log.
    tensorboard
        Whether TensorBoard files are written too.
    """

    batches: torch.utils.data.Dataset[Batch]
    validation: Sequence[Batch] | None
    loss: Loss
    modality: Modality
    optimiser: Optimiser
    steps: int
    validate_every: int
    patience: int | None
    checkpoint_every: int
    log_every: int
    seed: int
    budget: float | None
    folder: Path
    watch: Watch | None = None
    tensorboard: bool = False

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.folder / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint that validated best."""
        return self.folder / "checkpoints" / "best.pt"


def fit(model: Unrolled, run: Run, progress: Progress, device: str = "cpu", devices: int | None = None) -> None:
    """Train `model` from `progress` on, which is changed in place and saved as it goes.

    Parameters
    ----------
    model
        Gets the last weights.
    run, progress
        What to do, and where it stands.
    device
        "cpu", "cuda" (all of them, each with batches of its own) or "cuda:N".
    devices
        How many processes; as many as there are CUDA devices, or one on the CPU, when absent.

    Raises
    ------
    DivergenceError
        A loss or a gradient that is not finite; the last checkpoint is kept.
    KeyboardInterrupt
        After Ctrl-C, when the step is done and the checkpoint written.
    """
    if progress.weights:
        model.load_state_dict(progress.weights)
    kind, chosen = accelerator(device, devices)
    module = _Module(model, run, progress)
    several = not isinstance(chosen, list) and chosen > 1
    with quiet(), ctrl_c(module.interrupt), torch.random.fork_rng():
        trainer = pl.Trainer(
            accelerator=kind,
            devices=chosen,
            strategy="ddp_find_unused_parameters_true" if several else "auto",
            precision="bf16-mixed" if run.optimiser.precision == "bf16" else "32-true",
            max_epochs=1,
            logger=_tensorboard(run) if run.tensorboard else False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(module, train_dataloaders=_Numbered(run, progress.step, trainer))
        finally:
            model.to("cpu")
        if not trainer.is_global_zero:  # a helper process of a distributed run: the first one writes the model
            sys.exit(0)
    if module.interrupted:
        raise KeyboardInterrupt


class _Numbered(Sized):
    """The batches from a step on; with several processes each takes its own, n * world + rank."""

    def __init__(self, run: Run, first: int, trainer: pl.Trainer) -> None:
        self.run, self.first, self.trainer = run, first, trainer

    def __len__(self) -> int:
        return max(0, self.run.steps - self.first)

    def __iter__(self) -> Iterator[Batch]:
        world, rank = self.trainer.world_size, self.trainer.global_rank
        for step in range(self.first, self.run.steps):
            yield self.run.batches[step * world + rank]


class _Module(pl.LightningModule):
    """The model with its loss; one instance per run."""

    def __init__(self, model: Unrolled, run: Run, progress: Progress) -> None:
        super().__init__()
        self.model = model
        self.run = run
        self.progress = progress
        self.interrupted = False
        self.log_file: Log | None = None
        self.losses: list[float] = []
        self.gradient_norm = 0.0
        self.before = progress.seconds
        self.began = time.monotonic()
        self.mean: list[Tensor] | None = None
        self.described: WeakKeyDictionary[LinearOperator, Mapping[str, float | str]] = WeakKeyDictionary()

    def interrupt(self) -> None:
        """Stop after the step at hand."""
        self.interrupted = True

    # What Lightning asks for.

    def configure_optimizers(self) -> torch.optim.Optimizer:
        settings = self.run.optimiser
        optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        if self.progress.optimiser:
            load_optimiser(optimiser, self.progress.optimiser, self.run.last)
        for group in optimiser.param_groups:  # a resumed run may change it; the rate is set before every step
            group["weight_decay"] = settings.weight_decay
        return optimiser

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def on_fit_start(self) -> None:
        progress = self.progress
        if self.run.optimiser.ema is not None:
            kept = progress.mean or dict(self.model.named_parameters())
            self.mean = [kept[name].detach().clone().to(p.device) for name, p in self.model.named_parameters()]
        if self.trainer.is_global_zero:
            self.log_file = Log(self.run.folder / "log.csv", progress.step)
        self.model.train()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step = self.progress.step
        # Whatever a network draws (dropout) is a function of the step too.
        torch.manual_seed(
            (self.run.seed * 1_000_003 + step * self.trainer.world_size + self.trainer.global_rank) % 2**63
        )
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self._learning_rate(step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        step = self.progress.step
        number = step * self.trainer.world_size + self.trainer.global_rank
        if batch.operator not in self.described:
            self.described[batch.operator] = self.run.modality.describe(batch.operator)
        self.progress.see(self.described[batch.operator], batch.noise_std)
        generator = torch.Generator().manual_seed((self.run.seed * 1_000_003 + number) % 2**63)
        loss = self.run.loss(self.model, batch, generator)
        value = float(loss.detach())
        worst = self._all_agree(0.0 if math.isfinite(value) else 1.0 + self.trainer.global_rank, "max")
        if not math.isfinite(value):
            raise diverged(self.model, batch, number, self._kept())
        if worst:  # else this process would wait for that one without end
            number += int(worst) - 1 - self.trainer.global_rank
            raise DivergenceError(f"training diverged at batch {number}", expected="a finite loss",
                                  got="NaN or infinite values in another process", cure=self._kept())  # fmt: skip
        self.losses.append(value)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        limit = self.run.optimiser.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), math.inf if limit is None else limit)
        self.gradient_norm = float(norm)
        check_gradients(self.model, self.gradient_norm, self.progress.step, self._kept())

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        progress, run = self.progress, self.run
        progress.step += 1
        first = self.trainer.global_rank == 0  # whose clock is that of all
        progress.seconds = self._all_agree(self.before + time.monotonic() - self.began if first else 0.0, "sum")
        self.interrupted = bool(self._all_agree(float(self.interrupted), "max"))
        self._average()
        done = progress.step >= run.steps or (run.budget is not None and progress.seconds >= run.budget)
        figures = None
        if run.validation and (done or progress.step % run.validate_every == 0):
            figures = self._validate()
        if figures is not None or done or progress.step % run.log_every == 0:
            self._tell(figures)
        stale = run.patience is not None and progress.worse >= run.patience
        stop = bool(self._all_agree(float(done or stale or self.interrupted), "max"))
        if figures is not None or stop or progress.step % run.checkpoint_every == 0:
            self._save()
        if stop:
            self.trainer.should_stop = True

    # What is ours.

    def _learning_rate(self, step: int) -> float:
        """Cosine from the first to zero over the steps, or over the budget where that ends first."""
        settings = self.run.optimiser
        if settings.schedule == "constant":
            return settings.learning_rate
        share = step / self.run.steps
        if self.run.budget is not None:
            share = max(share, min(1.0, self.progress.seconds / self.run.budget))
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))

    def _average(self) -> None:
        """``m = d m + (1 - d) w`` with the decay d = min(ema, (1 + n) / (10 + n))."""
        if self.mean is None or self.run.optimiser.ema is None:
            return
        n = self.progress.step
        decay = min(self.run.optimiser.ema, (1 + n) / (10 + n))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.model.parameters()], 1 - decay)

    def _all_agree(self, value: float, how: str) -> float:
        """The sum or maximum of a number over the processes, which must take the same decisions at the same step."""
        if self.trainer.world_size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        return float(self.trainer.strategy.reduce(shared, reduce_op=how))

    def _validate(self) -> dict[str, float]:
        progress, run = self.progress, self.run
        assert run.validation is not None
        with self._averaged(), self._precision():
            figures = evaluate(self.model, run.validation, run.loss, run.modality, self.device)
            if not math.isfinite(figures["loss"]):
                raise DivergenceError(
                    f"validation diverged after step {progress.step}", expected="a finite loss", got=figures["loss"],
                    cure=f"lower optimiser.learning_rate; {self._kept()}",
                )  # fmt: skip
            if progress.best_loss is None or figures["loss"] < progress.best_loss:
                progress.best, progress.best_step = _weights(self.model), progress.step
                progress.best_loss, progress.best_metrics = figures["loss"], figures
                progress.worse = 0
            else:
                progress.worse += 1
        return figures

    def _precision(self) -> Any:
        if self.run.optimiser.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with the mean of its weights for a while."""
        if self.mean is None:
            yield
            return
        with torch.no_grad():
            own = [p.detach().clone() for p in self.model.parameters()]
            for p, m in zip(self.model.parameters(), self.mean, strict=True):
                p.copy_(m)
            try:
                yield
            finally:
                for p, w in zip(self.model.parameters(), own, strict=True):
                    p.copy_(w)

    def _tell(self, figures: dict[str, float] | None) -> None:
        figures = figures or {}
        point = Point(
            self.progress.step,
            self.progress.seconds,
            self._learning_rate(self.progress.step - 1),
            sum(self.losses) / max(1, len(self.losses)),
            self.gradient_norm,
            figures.get("loss"),
            figures.get("psnr"),
            figures.get("ssim"),
        )
        self.losses = []
        if self.log_file is None:
            return
        self.log_file.add(point)
        if self.run.watch is not None:
            self.run.watch(point)
        for logger in self.trainer.loggers:
            logger.log_metrics({k: v for k, v in vars(point).items() if v is not None and k != "step"}, step=point.step)

    def _save(self) -> None:
        progress = self.progress
        progress.weights = _weights(self.model)
        if self.mean is not None:
            names = [name for name, _ in self.model.named_parameters()]
            progress.mean = {name: m.detach().cpu().clone() for name, m in zip(names, self.mean, strict=True)}
        progress.optimiser = _on_cpu(self.trainer.optimizers[0].state_dict())
        if self.trainer.is_global_zero and all(bool(t.isfinite().all()) for t in progress.weights.values()):
            save(self.run.last, progress)
            if progress.best is not None and progress.best_step == progress.step:
                save(self.run.best, progress)

    def _kept(self) -> str:
        return f"the weights of an earlier step are in {self.run.last}" if self.run.last.exists() else ""


def _weights(model: Unrolled) -> Weights:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {k: _on_cpu(v) for k, v in value.items()}
    return [_on_cpu(v) for v in value] if isinstance(value, list) else value


def _tensorboard(run: Run) -> Any:
    try:
        from pytorch_lightning.loggers import TensorBoardLogger

        return TensorBoardLogger(run.folder, name="tensorboard", version="")
    except ImportError as error:
        raise InputError("tensorboard: true needs the package tensorboard", cure="pip install tensorboard") from error
