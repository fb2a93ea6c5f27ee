"""The interface of the frictions that adversarial training adjusts."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .... import config
from ....data.trajectory import BeadTrajectory
from ....dynamics import TrainableFriction
from ....fit import InitialFit
from ..parameters import TrainedParameters
from ..time_scales import TimeScales


@dataclass(frozen=True)
class LearningRates:
    """Learning rates of the friction, and bounds of its initial parameters.

    Attributes
    ----------
    logarithms : float
        Learning rate of parameters that are logarithms.
    functions : float
        Learning rate of the coefficients of functions, relative to their size.
    slowest_amplitude : float
        Change of the logarithm of the slowest auxiliary variable's amplitude in an iteration, for a relative excess of
        the late-time MSD increment of one. One rollout determines the increment to some percent, and the logarithm of
        the increment changes by -1.5 times as much: this averages over about 15 iterations.
    smallest_coefficient : float
        Size of coefficients that are smaller or zero at the start, in units of the root mean square of all.
    slowest_rate : float
        Smallest initial decay rate, in units of the floor. Near the floor a rate hardly changes any more, and windows
        determine the slowest memory least.
    """

    logarithms: float = 0.02
    functions: float = 0.005
    slowest_amplitude: float = 0.04
    smallest_coefficient: float = 0.05
    slowest_rate: float = 1.5


LEARNING_RATES = LearningRates()


class Generator(TrainableFriction):
    """A friction that adversarial training adjusts. Implementations derive from an equation of motion, too.

    Attributes
    ----------
    linear_response : bool
        Whether the linear response of the mean squared displacement to the kernel is known in closed form. The kernel
        is then fitted to it before and after training, for which the generator needs ``drift()`` [n_types, K + 1, K + 1]
        (1/ps), ``floor``, parameters whose first index is the bead type, and ``limit_friction(bead, largest)``, as
        :class:`SingleParticleGenerator` has them. Else :meth:`restrain` adjusts the kernel in every iteration.
    """

    linear_response: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def initial(
        cls,
        trajectory: BeadTrajectory,
        fit: InitialFit,
        settings: config.Dynamics,
        scales: TimeScales,
    ) -> Generator:
        """Return the generator that training starts from.

        Its memory is that of the residual forces where the reference holds forces and resolves them.

        Parameters
        ----------
        trajectory : BeadTrajectory
            The all-atom reference.
        fit : InitialFit
        settings : Dynamics
        scales : TimeScales
        """

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """Return the parameters in groups, each with its learning rate and whether it is whitened."""

    def mask_gradients(self) -> None:
        """Set the gradients of the parameters that :meth:`restrain` adjusts to zero."""

    @property
    def slowest(self) -> Tensor | None:
        """Logarithm of the amplitude of the slowest auxiliary variable, which :meth:`restrain` changes and which the final fit
        averages in place; None if there is none."""
        return None

    def restrain(self, excess: Tensor) -> None:
        """Apply constraints after a step of the optimizer.

        Parameters
        ----------
        excess : Tensor [n_types]
            Late-time MSD increment over that of the reference, minus one.
        """

    def warnings(self, fewest_neighbors: float) -> list[str]:
        """Return sentences on settings that are known to give bad models.

        Parameters
        ----------
        fewest_neighbors : float
            Number of neighbours below which friction between beads fails.
        """
        return []

    def trained(self, theta: Tensor) -> TrainedParameters:
        """Return the present parameters with those of a potential."""
        return TrainedParameters(theta.detach().clone(), self.export(), self.neighborhood)
