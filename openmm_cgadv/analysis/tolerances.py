"""Acceptance thresholds: how far an observable of a model may deviate from that of the reference."""

from __future__ import annotations

from dataclasses import dataclass

OBSERVABLES = ("diffusion", "msd", "vacf_rms", "rdf_l1", "adf_l1", "second_adf_l1")
"""Observables of structure and of the motion of single beads."""

COLLECTIVE_OBSERVABLES = (
    "viscosity",
    "stress_viscosity",
    "transverse_current",
    "displacement_correlation",
)
"""Observables of collective motion."""


@dataclass(frozen=True)
class Tolerances:
    """Deviations from the reference within which a model is accepted.

    The tolerance of an observable is the value given here, or what the statistical error of the reference leaves
    undetermined if that is more: twice its standard error, or a multiple of the noise floor (the difference of the two
    halves of the reference, about twice the error of the whole). That of angles is the latter alone, where it is known.

    Attributes
    ----------
    diffusion, msd : float
        Relative deviation of the diffusion coefficient and of the mean squared displacement.
    vacf_rms : float
        Root mean square difference of the normalized velocity autocorrelation functions.
    rdf_l1, adf_l1, second_adf_l1 : float
        Integrated absolute difference of the distributions, see `metrics.metrics`.
    viscosity, stress_viscosity : float
        Relative deviation of the viscosity from transverse currents and from the stress.
    transverse_current, displacement_correlation : float
        Largest difference of the normalized correlation functions.
    noise_floors : float
        Multiple of the noise floor that is allowed to g(r) and to angular distribution functions.
    vacf_noise_floors : float
        The same for the velocity autocorrelation function.
    longest_lag_ps : float
        Longest lag whose mean squared displacement is assessed.
    frozen : float
        Mean squared displacement at the longest lag, relative to the reference, below which a system has frozen.
    standard_errors : float
        Number of standard errors of the run by which a tolerance must be exceeded.
    reference_diffusion : float
        Relative standard error of the reference's diffusion coefficient that suffices to assess a model.
    temperature : float
        Relative deviation of the kinetic temperature.
    """

    diffusion: float = 0.03
    msd: float = 0.03
    vacf_rms: float = 0.015
    rdf_l1: float = 0.01
    adf_l1: float = 0.02
    second_adf_l1: float = 0.02
    viscosity: float = 0.10
    stress_viscosity: float = 0.10
    transverse_current: float = 0.06
    displacement_correlation: float = 0.05
    noise_floors: float = 2.0
    vacf_noise_floors: float = 1.0
    longest_lag_ps: float = 100.0
    frozen: float = 0.2
    standard_errors: float = 2.0
    reference_diffusion: float = 0.02
    temperature: float = 0.01

    def of(self, observable: str, reference: dict, floor: dict) -> float:
        """Return the tolerance of one of `OBSERVABLES`.

        That of "msd" is that of the diffusion coefficient, because the largest deviation is found at lags where the
        reference is as uncertain; see `of_msd` for a single lag.

        Parameters
        ----------
        observable : str
        reference : dict
            From `metrics.metrics`.
        floor : dict
            From `metrics.noise_floor`; may be empty.
        """
        least = getattr(self, observable)
        if observable in ("diffusion", "msd"):
            value, error = reference.get("diffusion_cm2_per_s"), reference.get("diffusion_stderr")
            return max(least, 2 * error / value) if value and error else least
        if floor.get(observable) is None:
            return least
        if observable == "vacf_rms":
            return max(least, self.vacf_noise_floors * floor[observable])
        noise = self.noise_floors * floor[observable]
        return noise if observable.endswith("adf_l1") else max(least, noise)

    def of_msd(self, lag: float, reference: dict) -> float:
        """Return the relative tolerance of the mean squared displacement at a lag, ps."""
        values = dict(reference.get("msd_nm2") or [])
        errors = dict(reference.get("msd_stderr") or [])
        near = min(values, key=lambda t: abs(t - lag), default=None)
        if near is None or not values[near] or errors.get(near) is None:
            return self.msd
        return max(self.msd, 2 * errors[near] / values[near])

    def of_short_run(
        self, observable: str, reference: dict, floor: dict, length: float | None
    ) -> float:
        """Return the tolerance of an observable in a run of some length, ps.

        The tolerance of g(r) and of angles is no less than the deviation of an exact model: its variance and that of
        each half of the reference, whose difference is the noise floor, are inversely proportional to the length.
        """
        allowed = self.of(observable, reference, floor)
        known = observable in ("rdf_l1", "adf_l1") and floor.get(observable) is not None
        if length is None or not known:
            return allowed
        return max(allowed, 0.5 * floor[observable] * (reference["length_ps"] / length + 1) ** 0.5)


TOLERANCES = Tolerances()
