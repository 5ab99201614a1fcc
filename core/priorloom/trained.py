"""ModelSlot: the place of a trained model in a method, ``model.*``, and the assembly that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .card import Card, Stability, outside, read_card
from .errors import InputError
from .lipschitz import certificate
from .models import check_weights, load_card, newest_version
from .pipeline import Assembly, Learned
from .steps.safeguard import safeguarded
from .train.denoising import OPERATOR

if TYPE_CHECKING:
    from .modality import Case
    from .problem import Problem
    from .registry import Registry
    from .unrolled import Unrolled


@dataclass(frozen=True)
class ModelSlot:
    """``model.name`` or ``model.path``: which trained model a method runs.

    Parameters
    ----------
    method
        The method; without a setting it runs the registered model ``MODALITY.METHOD``. Empty: a setting is needed.
    architecture
        The architecture that its models have; any when absent.
    name
        A registered model, such as ct.learned-primal-dual; that of the method and the case's modality when absent.
    path
        The folder of a model that you trained: model.safetensors and card.json, or folders VERSION that hold them.
    registry
        Bound by the registry.
    """

    method: str = ""
    architecture: str | None = None
    name: str | None = None
    path: Path | None = None
    registry: Registry | None = field(default=None, compare=False, repr=False)

    def card(self, modality: str) -> tuple[Path, Card]:
        """The model's folder and its card.

        Raises
        ------
        InputError
            No model, or one of another modality or architecture.
        """
        folder = self._folder(modality)
        card = read_card(folder)
        if self.path is None and card.name != self._wanted(modality):
            raise InputError(f"card in {folder}", expected=f"model '{self._wanted(modality)}'", got=f"'{card.name}'")
        if card.modality != modality:
            raise InputError(
                f"model '{card.name}' on a case of {modality}", expected=f"a case of {card.modality}", got=modality,
                cure=self._cure(modality),
            )  # fmt: skip
        if card.scope.operator == OPERATOR:
            raise InputError(
                f"model '{card.name}' in method '{self.method or 'learned'}'", expected="one that reconstructs",
                got="a denoiser", cure="put it into the slot of another, such as --method pnp-hqs: "
                "denoiser.name=trained and denoiser.path=FOLDER",
            )  # fmt: skip
        if self.architecture is not None and card.architecture.name != self.architecture:
            raise InputError(
                f"model '{card.name}' in method '{self.method}'", expected=f"architecture '{self.architecture}'",
                got=f"'{card.architecture.name}'", cure="use method 'learned', which runs any",
            )  # fmt: skip
        return folder, card

    def check(self, modality: str) -> None:
        """Raise InputError where the model cannot be run, as far as that shows without a case."""
        check_weights(*self.card(modality))

    def is_filled(self, modality: str) -> bool:
        """Whether a model is named, or registered for the method and the modality."""
        assert self.registry is not None, "a ModelSlot is bound by the registry before it is used"
        return self.path is not None or self._wanted(modality) in self.registry.names("model")

    def assemble(self, case: Case) -> Assembly:
        """The layers on the case, with what the card says and what it does not cover."""
        assert self.registry is not None, "a ModelSlot is bound by the registry before it is used"
        assert case.noise_std is not None, "the host fills in noise_std before a pipeline sees a case"
        folder, card = self.card(case.modality)
        A, y = case.operator, case.measurement
        network = load_card(folder, card, self.registry, A)
        if card.safeguarded:
            network = safeguarded(network)
        problem = network.problem(A, y, case.noise_std)
        described = self.registry.modality(case.modality).describe(A)
        return Assembly(
            problem,
            network.layers,
            network.starting_image(A, y),
            parameters={"model.name": card.name, "model.version": card.version},
            model=Learned(card.name, card.version, card.parameters, card.data, str(_stability(card, network, problem))),
            warnings=tuple(outside(card.scope, described, case.noise_std)),
        )

    def _wanted(self, modality: str) -> str:
        return self.name or f"{modality}.{self.method}"

    def _folder(self, modality: str) -> Path:
        assert self.registry is not None, "a ModelSlot is bound by the registry before it is used"
        if self.path is not None:
            if self.name is not None:
                raise InputError("model.name and model.path", expected="one of them", got="both")
            return self.path if (self.path / "card.json").exists() else newest_version(self.path)
        known = self.registry.names("model")
        if self._wanted(modality) in known:
            return self.registry.model(self._wanted(modality))
        if self.name is not None:
            self.registry.factory("model", self.name)  # raises: did you mean
        raise InputError(
            f"method '{self.method or 'learned'}' on {modality}", expected="a trained model", got="none",
            cure=self._cure(modality),
        )  # fmt: skip

    def _cure(self, modality: str) -> str:
        assert self.registry is not None
        denoisers = self.registry.names("denoiser")
        parts = (name.partition(".") for name in self.registry.names("model"))
        names = ["".join(p) for p in parts if p[0] == modality and p[2] not in denoisers]
        return f"set model.path=FOLDER of one you trained, or model.name; registered for {modality}: " + (
            ", ".join(names) or "none"
        )


def _stability(card: Card, network: Unrolled, problem: Problem) -> Stability:
    """What is proven of the layers on the operator at hand: the number on the card is that of one in training."""
    if card.safeguarded:
        return Stability(None, "the safeguard goes from one image to another at once")
    if card.certificate.lipschitz is None:
        return card.certificate
    found = certificate(network.layers, problem)
    return Stability(found.bound, f"from the starting image to the last: {found.reason}")
