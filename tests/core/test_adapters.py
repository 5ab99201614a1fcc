"""SciPy and PyLops operators as LinearOperators and back, against the matrices that they are."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg as sla
import torch

from priorloom import LinearOperator, Space
from priorloom.adapters import from_scipy, to_scipy
from priorloom.dense import DenseOperator
from priorloom.errors import InputError
from priorloom.operator import Gradient
from priorloom.testing import check_operator

RANDOM = np.random.default_rng(0)
REAL = RANDOM.standard_normal((6, 4))
COMPLEX = REAL + 1j * RANDOM.standard_normal((6, 4))
MATRICES = {
    "float32": REAL.astype("float32"), "float64": REAL, "complex64": COMPLEX.astype("complex64"), "complex128": COMPLEX,
}  # fmt: skip


def function(matrix: np.ndarray) -> sla.LinearOperator:
    return sla.LinearOperator(
        matrix.shape, lambda x: matrix @ x, rmatvec=lambda y: matrix.conj().T @ y, dtype=matrix.dtype
    )


FORMS = {
    "LinearOperator": sla.aslinearoperator, "functions": function, "csr": scipy.sparse.csr_array,
    "coo matrix": scipy.sparse.coo_matrix, "array": np.asarray,
}  # fmt: skip


@pytest.mark.parametrize("dtype", MATRICES)
@pytest.mark.parametrize("form", FORMS)
def test_values_are_the_matrix_and_its_conjugate_transpose(form: str, dtype: str, generator: torch.Generator) -> None:
    matrix = MATRICES[dtype]
    A = from_scipy(FORMS[form](matrix))
    assert (A.domain, A.range) == (Space((4,), getattr(torch, dtype)), Space((6,), getattr(torch, dtype)))
    x, y = A.domain.random(generator, (2, 3)), A.range.random(generator, (5,))
    torch.testing.assert_close(A(x), torch.from_numpy(x.numpy() @ matrix.T))
    torch.testing.assert_close(A.adjoint(y), torch.from_numpy(y.numpy() @ matrix.conj()))
    if A.domain.is_complex:
        torch.testing.assert_close(A(x.conj()), torch.from_numpy(x.numpy().conj() @ matrix.T))
    assert A(A.domain.zeros((0, 2))).shape == (0, 2, 6)


@pytest.mark.parametrize("dtype", MATRICES)
@pytest.mark.parametrize("form", [name for name in FORMS if name != "functions"])
def test_the_kit_runs_on_what_was_written_elsewhere(form: str, dtype: str) -> None:
    assert check_operator(from_scipy(FORMS[form](MATRICES[dtype]), Space((2, 2), getattr(torch, dtype))))


@pytest.mark.parametrize("name", ["gradient", "convolution", "complex FFT", "real FFT"])
def test_the_kit_runs_on_pylops_operators(name: str, generator: torch.Generator) -> None:
    pylops = pytest.importorskip("pylops", reason="PyLops is not installed")
    domain = Space((4, 6), torch.float64) if name == "real FFT" else None
    theirs = {
        "gradient": lambda: pylops.Gradient((4, 6), dtype="float64"),
        "convolution": lambda: pylops.signalprocessing.Convolve2D(
            (4, 6), h=np.arange(9.0).reshape(3, 3), offset=(1, 1), method="direct", dtype="float64"
        ),
        "complex FFT": lambda: pylops.signalprocessing.FFT2D((4, 6), dtype="complex128"),
        "real FFT": lambda: pylops.signalprocessing.FFT2D((4, 6), real=True, dtype="float64"),
    }[name]()
    A = from_scipy(theirs, domain)
    assert A.domain.shape == (4, 6)
    assert A.range.shape == tuple(theirs.dimsd)
    x = A.domain.random(generator, (2,))
    expected = np.stack([theirs @ one for one in x.numpy()])
    np.testing.assert_allclose(A(x).numpy(), expected, rtol=1e-10, atol=1e-10)
    assert check_operator(A)


def test_a_wrong_or_missing_adjoint_is_refused_with_the_gap() -> None:
    def wrong(transpose: np.ndarray) -> sla.LinearOperator:
        return sla.LinearOperator((6, 4), lambda x: COMPLEX @ x, rmatvec=lambda y: transpose @ y, dtype="complex128")

    with pytest.raises(
        InputError, match=r"adjoint of the operator .*: expected the conjugate transpose, got gap \d\.\d"
    ):
        from_scipy(wrong(COMPLEX.T))
    with pytest.raises(InputError, match=r"got gap 0\.01"):
        from_scipy(wrong(1.01 * COMPLEX.conj().T))
    with pytest.raises(InputError, match="give the LinearOperator an rmatvec"):
        from_scipy(sla.LinearOperator((6, 4), lambda x: REAL @ x, dtype="float64"))
    with pytest.raises(InputError, match="matvec and rmatvec that can be applied, got ValueError"):  # of another shape
        from_scipy(sla.LinearOperator((6, 4), lambda x: REAL @ x, rmatvec=lambda y: y, dtype="float64"))


def test_what_is_not_linear_over_the_complex_numbers_is_refused() -> None:
    def real_part(x: np.ndarray) -> np.ndarray:
        return np.real(x).astype("complex128")  # its own adjoint in the real inner product

    parts = sla.LinearOperator((4, 4), real_part, rmatvec=real_part, dtype="complex128")
    with pytest.raises(InputError, match=r"adjoint of the operator .*; give a real domain"):
        from_scipy(parts)
    A = from_scipy(parts, Space((4,), torch.float64))
    x = torch.arange(4, dtype=torch.float64)
    assert torch.equal(A.adjoint(A(x)), x)


def test_what_cannot_be_an_operator_is_refused() -> None:
    with pytest.raises(InputError, match="operator for from_scipy: expected a scipy LinearOperator"):
        from_scipy("blur")
    with pytest.raises(InputError, match="operator for from_scipy: expected a scipy LinearOperator"):
        from_scipy(np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match="expected one of SciPy or PyLops, got a LinearOperator"):
        from_scipy(DenseOperator(torch.eye(2)))
    with pytest.raises(
        InputError, match="dtype of the operator for from_scipy: expected a real or complex float, got int64"
    ):
        from_scipy(scipy.sparse.eye_array(3, dtype=int))
    with pytest.raises(InputError, match=r"domain for from_scipy: expected 4 entries, got shape \[3\]"):
        from_scipy(REAL, Space((3,)))
    with pytest.raises(InputError, match=r"domain for from_scipy: expected a Space, got \(4,\)"):
        from_scipy(REAL, (4,))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="range for from_scipy: expected a complex dtype"):
        from_scipy(REAL, Space((4,), torch.complex64), Space((6,)))
    assert from_scipy(scipy.sparse.eye_array(3, dtype=int), Space((3,)), Space((3,))).domain.dtype == torch.float32


def test_precision_follows_the_operator() -> None:
    single = from_scipy(function(MATRICES["float32"]))
    with pytest.raises(InputError, match="precision of ScipyOperator"):
        single.double()
    assert from_scipy(function(REAL)).computes_double


@pytest.mark.parametrize("dtype", MATRICES)
def test_scipy_solves_and_decomposes_with_ours(dtype: str) -> None:
    matrix = MATRICES[dtype]
    B = to_scipy(DenseOperator(torch.from_numpy(matrix)))
    assert (B.shape, B.dtype) == ((6, 4), np.dtype(dtype))
    y = RANDOM.standard_normal(6).astype(dtype)
    tolerance = 1e-3 if dtype in ("float32", "complex64") else 1e-8
    solved = sla.lsqr(B, y, atol=1e-12, btol=1e-12)[0]
    np.testing.assert_allclose(solved, np.linalg.lstsq(matrix, y)[0], rtol=tolerance, atol=tolerance)
    values = sla.svds(B, k=2, return_singular_vectors=False, rng=np.random.default_rng(1))
    np.testing.assert_allclose(np.sort(values)[::-1], np.linalg.svd(matrix)[1][:2], rtol=tolerance)
    several = RANDOM.standard_normal((4, 3)).astype(dtype)
    np.testing.assert_allclose(B @ several, matrix @ several, rtol=1e-5)
    assert (B @ several).dtype == dtype
    np.testing.assert_allclose(B.H @ y, matrix.conj().T @ y, rtol=1e-5, atol=1e-6)


def test_to_scipy_takes_other_byte_orders_and_no_columns() -> None:
    B = to_scipy(DenseOperator(torch.from_numpy(REAL)))
    x = RANDOM.standard_normal(4)
    np.testing.assert_array_equal(B @ x.astype(">f8"), B @ x)
    assert (B @ np.zeros((4, 0))).shape == (6, 0)


class RealToComplex(LinearOperator):
    """``Re x -> C x`` with a complex matrix."""

    def __init__(self) -> None:
        super().__init__(Space((2, 2), torch.float64), Space((6,), torch.complex128))
        self.register_buffer("matrix", torch.from_numpy(COMPLEX))

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(-2).to(self.matrix.dtype) @ self.matrix.T

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return (y @ self.matrix.conj()).real.unflatten(-1, (2, 2))


def test_real_images_with_complex_data_are_the_complex_matrix() -> None:
    B = to_scipy(RealToComplex())
    x, y = RANDOM.standard_normal((2, 4, 2)), RANDOM.standard_normal((6, 2)) + 1j * RANDOM.standard_normal((6, 2))
    np.testing.assert_allclose(B @ (x[0] + 1j * x[1]), COMPLEX @ (x[0] + 1j * x[1]), rtol=1e-12)
    np.testing.assert_allclose(B.H @ y, COMPLEX.conj().T @ y, rtol=1e-12)
    again = from_scipy(COMPLEX, Space((4,), torch.float64))
    torch.testing.assert_close(
        again.adjoint(torch.from_numpy(y.T.copy())), torch.from_numpy((COMPLEX.conj().T @ y).real.T)
    )


def test_there_and_back_is_the_same_operator(generator: torch.Generator) -> None:
    A = Gradient(Space((5, 4), torch.float64))
    B = from_scipy(to_scipy(A), A.domain, A.range)
    x, y = A.domain.random(generator, (2,)).requires_grad_(), A.range.random(generator, (2,))
    torch.testing.assert_close(B(x), A(x))
    torch.testing.assert_close(B.adjoint(y), A.adjoint(y))
    assert isinstance(to_scipy(A) @ x.detach()[0].numpy().ravel(), np.ndarray)
    with pytest.raises(InputError, match="operator for to_scipy: expected a LinearOperator, got csr_array"):
        to_scipy(scipy.sparse.eye_array(2, format="csr"))  # type: ignore[arg-type]


def test_pylops_inverts_ours(generator: torch.Generator) -> None:
    pylops = pytest.importorskip("pylops", reason="PyLops is not installed")
    theirs = pylops.aslinearoperator(to_scipy(DenseOperator(torch.from_numpy(COMPLEX))))
    y = RANDOM.standard_normal(6) + 0j
    solved = pylops.optimization.basic.cgls(theirs, y, niter=20, tol=1e-14)[0]
    np.testing.assert_allclose(solved, np.linalg.lstsq(COMPLEX, y)[0], rtol=1e-6)
