"""Linear response of the mean squared displacement to the memory kernel, and fits of the kernel based on it.

The forces that neighbours exert on a bead hardly depend on its friction. With Laplace transforms, the normalized
velocity autocorrelation function is Ĉ(s) = 1/(s + K̂(s) + K̂'(s)), where K is the memory kernel of the friction and K'
that of the conservative forces. A small change of K changes it by −Ĉ² δK̂, and the mean squared displacement M by

    δM(t) = −m/(6 kT) ∫_0^t (Ṁ * Ṁ)(t − u) dδG(u),    G(t) = ∫_0^t K(s) ds,

where * is a convolution and G(0) the instantaneous friction. M is measured in rollouts, so no model of the liquid is
needed. The neighbours' response, which is neglected, increases the change: in water by up to one half around 1 ps, and
not at all before 0.3 ps (``docs/theory/msd_response.md``). Repeated fits, each with new rollouts, correct for it. Compare the
iterative reconstruction of memory kernels by Jung, Hanke and Schmid (2017), doi:10.1021/acs.jctc.7b00274.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares


@dataclass(frozen=True)
class ResponseFitSettings:
    """Hyperparameters of a fit of the memory kernel.

    Attributes
    ----------
    prior : float
        Standard deviation of the parameters, which are logarithms of friction, decay rates and couplings, around
        their starting values. It is wide, so it only bounds parameters that the data do not determine.
    model_error : float
        Error of the linear response, relative to the change of the mean squared displacement.
    precision : float
        Relative change of the sum of squares at which the fit ends.
    difference : float
        Relative step of finite differences, the square root of the machine precision.
    perturbation : float
        Standard deviation of the perturbations that give further starting points.
    evaluations : int
        Most evaluations of the residuals from each further starting point.
    """

    prior: float = 4.0
    model_error: float = 0.3
    precision: float = 1e-4
    difference: float = 1.5e-8
    perturbation: float = 0.5
    evaluations: int = 200


@dataclass(frozen=True)
class MsdMeasurement:
    """Mean squared displacements of one bead type in rollouts of one model.

    Attributes
    ----------
    msd : ndarray [T]
        At times ``h, 2 h … T h`` (nm²).
    running : ndarray [T + 1]
        Running integral of the model's memory kernel at ``0, h … T h`` (1/ps).
    log_ratio : ndarray [lags]
        Logarithm of the reference's mean squared displacements over these, at the compared lags.
    covariance : ndarray [lags, lags]
        Covariance of the statistical errors of `log_ratio`.
    """

    msd: np.ndarray
    running: np.ndarray
    log_ratio: np.ndarray
    covariance: np.ndarray


def msd_response(
    msd: np.ndarray, change: np.ndarray, interval: float, thermal: float
) -> np.ndarray:
    """Return the change of mean squared displacements with the running integral of the memory kernel.

    Parameters
    ----------
    msd : ndarray [T]
        Mean squared displacements at times ``h, 2 h … T h`` (nm²).
    change : ndarray [T + 1]
        Change of the running integral at ``0, h … T h`` (1/ps).
    interval : float
        h (ps).
    thermal : float
        kT/m (nm²/ps²).

    Returns
    -------
    ndarray [T]
        (nm²)
    """
    steps = np.diff(msd, prepend=0.0)
    # The mean time of intervals j and k together is (j + k + 1) h.
    both = np.concatenate([[0.0], np.convolve(steps, steps)[: len(steps)]])
    delayed = np.convolve(0.5 * (both[1:] + both[:-1]), np.diff(change))[: len(steps)]
    return -(both[1:] * change[0] + delayed) / (6 * thermal * interval)


def fit_kernel(
    start: np.ndarray,
    running: Callable[[np.ndarray], np.ndarray],
    measurements: list[MsdMeasurement],
    lags: np.ndarray,
    interval: float,
    thermal: float,
    starts: int = 1,
    random: np.random.Generator | None = None,
    settings: ResponseFitSettings = ResponseFitSettings(),
) -> np.ndarray:
    """Fit the parameters of one bead type's memory kernel by nonlinear least squares.

    Parameters
    ----------
    start : ndarray [P]
        Starting point, and mean of the prior.
    running : callable
        Returns running integrals of the kernel [B, T + 1] (1/ps) at ``0, h … T h`` for parameters [B, P].
    measurements : list of MsdMeasurement
        Of one model or several.
    lags : ndarray [lags] of int
        Indices of the compared lags among the times ``h, 2 h … T h``.
    interval : float
        h (ps).
    thermal : float
        kT/m (nm²/ps²).
    starts : int
        Number of starting points. The best fit is returned; sums of exponentials have several minima.
    random : numpy.random.Generator, optional
        Draws the starting points after the first.
    settings : ResponseFitSettings

    Returns
    -------
    ndarray [P]
    """
    # The response is linear in the running integral, so the whitened residuals are ``target - response @ running``.
    targets, responses = [], []
    for one in measurements:
        white = np.linalg.cholesky(
            np.linalg.inv(one.covariance + np.diag((settings.model_error * one.log_ratio) ** 2))
        ).T
        units = np.eye(len(one.running))
        relative = (
            np.stack([msd_response(one.msd, unit, interval, thermal)[lags] for unit in units], 1)
            / one.msd[lags, None]
        )
        responses.append(white @ relative)
        targets.append(white @ one.log_ratio + responses[-1] @ one.running)
    target, response = np.concatenate(targets), np.concatenate(responses)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        prior = (parameters - start) / settings.prior
        return np.concatenate([prior, target - response @ running(parameters[None])[0]])

    def jacobian(parameters: np.ndarray) -> np.ndarray:
        steps = settings.difference * np.maximum(1.0, np.abs(parameters))
        found = running(np.vstack([parameters, parameters + np.diag(steps)]))
        slopes = -response @ (found[1:] - found[0]).T / steps
        return np.concatenate([np.eye(len(start)) / settings.prior, slopes])

    # MINPACK scales by the Jacobian; the default of older SciPy does not.
    options = {"method": "lm", "x_scale": "jac", "ftol": settings.precision}
    fits = [least_squares(residuals, start, jacobian, **options)]
    random = np.random.default_rng(0) if random is None else random
    perturbations = random.normal(size=[starts - 1, len(start)])
    for perturbed in start + settings.perturbation * perturbations:
        # A starting point may be so far off that residuals overflow.
        with np.errstate(all="ignore"):
            fits.append(
                least_squares(
                    residuals, perturbed, jacobian, max_nfev=settings.evaluations, **options
                )
            )
    return min(fits, key=lambda fit: fit.cost if np.isfinite(fit.cost) else np.inf).x
