"""Pipeline: a reconstruction method as a recipe (case, typed parameters) -> problem, steps, start; and its Result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from .errors import InputError
from .functional import Functional, LeastSquares
from .judgement import Judgement
from .modality import Case
from .noise import backprojected_std
from .operator import Identity
from .parameters import REQUIRED, Parameter, signature_parameters
from .per_image import per_image
from .problem import Problem, Term
from .solve import Outcome, Record
from .space import Space
from .steps.base import Step
from .steps.convergence import converges

if TYPE_CHECKING:
    from .chosen import Chosen

Kind = Literal["direct", "classical", "pnp", "learned"]
Choice = Literal["default", "given", "rule", "tuned", "oracle", "learned"]
"""How a method's parameters were chosen: left alone, by the user, by a rule from the measurement alone, as the best on
tuning cases, as the best for the truth itself, or learned."""
Certificate = Literal["certified", "empirical", "none"]


@dataclass(frozen=True)
class Solver:
    """``solver.*``: when to stop. Pipelines whose step has parameters of its own extend it.

    Parameters
    ----------
    max_iterations
        The most iterations that are done.
    tolerance
        The residual at which the iteration has converged; see the result's criterion.
    """

    max_iterations: int = 2000
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Slot:
    """``prior.*`` or ``denoiser.*``: a place in a pipeline that any registered component of one kind fills.

    Parameters
    ----------
    kind, name
        Which kind of component, and the one that fills the place.
    parameters
        What the user (or the pipeline's author) set for it.
    factory
        Bound by the registry.
    """

    kind: Literal["prior", "denoiser"]
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    factory: Callable[..., Any] | None = field(default=None, compare=False)

    def _takes(self) -> tuple[Parameter, ...]:
        assert self.factory is not None, "a Slot is bound by the registry before it is built"
        return signature_parameters(self.factory, 1, f"{self.kind} '{self.name}'")

    @property
    def unset(self) -> tuple[str, ...]:
        """The parameters that have no default and were not set: those that the pipeline may choose."""
        return tuple(p.name for p in self._takes() if p.default is REQUIRED and p.name not in self.parameters)

    def build(self, space: Space, **fallback: Any) -> Any:
        """The component on `space`; `fallback` gives parameters that were not set, where the component takes them.

        Raises
        ------
        InputError
            A parameter without a default is neither set nor in `fallback`.
        """
        takes = {p.name for p in self._takes()}
        given = {name: value for name, value in fallback.items() if name in takes} | dict(self.parameters)
        for name in self.unset:
            if name not in given:
                raise InputError(f"{self.kind} '{self.name}' needs parameter '{self.kind}.{name}'", got="nothing")
        assert self.factory is not None
        return self.factory(space, **given)


@dataclass(frozen=True)
class Learned:
    """What a trained model says of itself in a result.

    Parameters
    ----------
    name, version
        Such as "ct.learned-primal-dual" and "1".
    parameters
        How many numbers were learned.
    data
        What it was trained on, in one line.
    stability
        Its Lipschitz bound, or why there is none, in a few words.
    """

    name: str
    version: str
    parameters: int
    data: str
    stability: str


@dataclass(frozen=True)
class Assembly:
    """A problem with the steps that solve it.

    Parameters
    ----------
    problem, steps
        One Step to repeat, or a ModuleList to apply once each (empty for a direct method).
    start
        The starting image; zero when absent.
    solver
        When to stop.
    parameters
        Parameters that were chosen automatically, by their dotted names.
    certificate
        "certified" (a convergence theorem applies), "empirical" (to be observed) or "none".
    judgement
        The theorem behind the certificate, or why there is none.
    damped
        Whether the iteration was damped because no theorem covers it as it is, or so that one does.
    model
        The trained model whose layers the steps are.
    warnings
        Why the result may be worse than the method is known for, one sentence each.
    """

    problem: Problem
    steps: Step[Any] | nn.ModuleList
    start: Tensor | None = None
    solver: Solver = Solver()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    certificate: Certificate = "none"
    model: Learned | None = None
    warnings: tuple[str, ...] = ()
    judgement: Judgement | None = None
    damped: bool = False


@dataclass(frozen=True)
class Range:
    """Where a parameter is searched, on a logarithmic scale.

    Parameters
    ----------
    low, high
        Positive ends.
    relative
        Whether the ends are multiples of the value that the pipeline chooses by itself for a case
        (``Assembly.parameters``), as they are for a weight.
    """

    low: float
    high: float
    relative: bool = False


AROUND = Range(0.01, 100.0, relative=True)
"""Two decades either way of the automatic value: where a weight is searched."""


@dataclass(frozen=True)
class Pipeline:
    """A reconstruction method.

    Parameters
    ----------
    name, kind, summary
        What the tables show; the summary is the objective and the algorithm in one line.
    assemble
        ``assemble(case, *, ...) -> Assembly``. The case is normalised and has a noise_std. Its keyword-only arguments
        are the method's parameters: numbers, a Solver (``solver.*``), Slots (``prior.*``, ``denoiser.*``) and a
        ``trained.ModelSlot`` (``model.*``).
    modalities
        Where it applies; empty for everywhere.
    search
        What is tuned where nothing else is said: parameters by dotted names in the order of their importance, each with
        the range of a number or the words to choose from. Empty for a method that has nothing to tune.
    """

    name: str
    kind: Kind
    summary: str
    assemble: Callable[..., Assembly]
    modalities: tuple[str, ...] = ()
    search: Mapping[str, Range | tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A reconstruction and its evidence.

    Parameters
    ----------
    method, kind, case, modality
        Which method on which case.
    image
        The reconstruction in the user's units, ``[..., *shape]``.
    metrics
        psnr, ssim, nmse and data_range, or None without a truth.
    seconds, iterations, residual, gap, objective, converged, criterion, history
        How the iteration went; None where a direct method has nothing to say.
    parameters
        Every parameter by its dotted name, as used.
    tuned
        How the parameters were chosen; see `Choice`.
    certificate, seed, scale, versions
        "certified" (a convergence theorem applies), "empirical" (the criterion was met, which is all that is known) or
        "none"; the run's seed, the normalisation that was undone, and what computed.
    model
        The trained model that made it, or None.
    warnings
        Why it may be worse than the method is known for, one sentence each.
    outcome, story
        How the iteration ended, in a word and in a sentence (``solve.Solution``); empty for a direct method.
    judgement
        The theorem behind the certificate, or why there is none.
    damped
        Whether the iteration was damped because no theorem covers it as it is, or so that one does.
    penalty
        The objective without its data term at the image, ``lam R(x)``, in normalised units as the objective is; None
        where there is no objective.
    chosen
        The record of the rule that chose a parameter for this case; None where there was none.
    """

    method: str
    kind: Kind
    case: str
    modality: str
    image: Tensor
    metrics: Mapping[str, float] | None
    seconds: float
    iterations: int
    residual: float | None
    gap: float | None
    objective: float | None
    converged: bool | None
    criterion: str
    history: tuple[Record, ...]
    parameters: Mapping[str, Any]
    tuned: Choice
    certificate: Certificate
    seed: int
    scale: float
    versions: Mapping[str, str]
    model: Learned | None = None
    warnings: tuple[str, ...] = ()
    outcome: Outcome = ""
    story: str = ""
    judgement: Judgement | None = None
    damped: bool = False
    penalty: float | None = None
    chosen: Chosen | None = None


def least_squares(case: Case) -> Term:
    """The data term ``0.5 |Ax - y|^2`` of a case."""
    return Term(LeastSquares(case.operator.range, case.measurement), case.operator)


def objective(case: Case, prior: Functional | Term, constraint: Functional | None = None) -> Problem:
    """``0.5 |Ax - y|^2 + prior(x) + constraint(x)``.

    A Term goes to the operator terms and the constraint to the prox slot; a Functional goes to the prox slot, or where
    a constraint takes that, behind an Identity.
    """
    if constraint is None and isinstance(prior, Functional):
        return Problem(least_squares(case), prior)
    term = prior if isinstance(prior, Term) else Term(prior, Identity(prior.space))
    return Problem(least_squares(case), constraint, (term,))


def direct(case: Case, image: Tensor, warnings: tuple[str, ...] = ()) -> Assembly:
    """The assembly of a direct method: the image, no steps, and what the reader should know about it."""
    return Assembly(Problem(least_squares(case)), nn.ModuleList([]), start=image, warnings=warnings)


def regularised(
    case: Case,
    step: Step[Any],
    prior: Slot,
    lam: float,
    solver: Solver,
    *,
    constraint: Functional | None = None,
    start: Tensor | None = None,
) -> Assembly:
    """``0.5 |Ax - y|^2 + lam R(x)`` by a classical step, the prior from a slot; certified where a theorem applies.

    Parameters
    ----------
    case, step, solver
        What to solve, by which step, until when.
    prior, lam
        The slot, and the weight for a prior that has one which the user did not set.
    constraint
        An indicator for the prox slot, such as nonnegativity.
    start
        The starting image; zero when absent.
    """
    A = case.operator
    chosen = {"lam": lam} if "lam" in prior.unset else {}
    problem = objective(case, per_image(prior.build(A.image_space, **chosen), A.domain), constraint)
    parameters = {f"prior.{name}": value for name, value in chosen.items()}
    certificate: Certificate = "certified" if converges(step, problem) else "empirical"
    return Assembly(problem, step, start, solver, parameters, certificate)


def backprojected_noise(case: Case) -> float:
    """Standard deviation of ``A^H e`` per pixel for the case's noise e: ``sigma |A|_F / sqrt(pixels)``.

    It is the natural unit of a regularisation weight: ``lam = c std(A^H e)`` with a dimensionless c means the same for
    every operator, scale and noise level (for A = I and soft-thresholding c = sqrt(2 log n) is Donoho and Johnstone's
    universal threshold).
    """
    assert case.noise_std is not None, "the host fills in noise_std before a pipeline sees a case"
    return case.noise_std * backprojected_std(case.operator)
