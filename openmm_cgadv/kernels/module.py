"""The energy by the compiled core as a module that TorchScript compiles."""

import json
from typing import TYPE_CHECKING, Optional

import torch
from torch import Tensor

from .arguments import checked_parameters, is_single
from .library import operators
from .packing import pack

if TYPE_CHECKING:
    from ..potentials import PotentialSpec


class FusedPotential(torch.nn.Module):
    """Energy and forces for TorchForce with ``setOutputsForces(True)``; TorchScript compiles it.

    A saved module needs ``torch.ops.load_library(openmm_cgadv.kernels.library_path())`` before it is
    loaded, which importing :mod:`openmm_cgadv.kernels` does.

    Parameters
    ----------
    spec : PotentialSpec
    theta : Tensor [P]
        (kJ/mol)
    types : Tensor [N] of int64
    precision : {"double", "single"}
        Arithmetic inside the kernel.
    threads : int
        Number of threads; 0 asks for as many as torch uses where the module is made.
    deliveries : str
        Path of files with new parameters, but for the number that ends it.
    """

    theta: Tensor
    types: Tensor
    ispec: Tensor
    fspec: Tensor

    def __init__(
        self,
        spec: "PotentialSpec",
        theta: Tensor,
        types: Tensor,
        precision: str = "single",
        threads: int = 0,
        deliveries: str = "",
    ) -> None:
        super().__init__()
        operators()
        ispec, fspec = pack(spec)
        self.register_buffer("theta", checked_parameters(theta, spec).clone())
        self.register_buffer("types", types.to(torch.int64).clone())
        self.register_buffer("ispec", ispec)
        self.register_buffer("fspec", fspec)
        self.description: str = json.dumps(spec.to_dict())
        self.single: bool = is_single(precision)
        self.threads: int = threads if threads > 0 else torch.get_num_threads()
        self.deliveries: str = deliveries

    def forward(
        self,
        positions: Tensor,
        box: Tensor,
        delivery: Optional[Tensor] = None,  # noqa: UP045 TorchScript of torch 2.9 wants this form
    ) -> tuple[Tensor, Tensor]:
        """Energy [] (kJ/mol) and forces [N, 3] (kJ/mol/nm) in the precision of the positions and where they are; computed by
        the CPU wherever OpenMM has put them.

        With a delivery above 0 the parameters are read from the file of that number before.
        """
        if delivery is not None and int(delivery) > 0:
            path = self.deliveries + str(int(delivery))
            self.theta.copy_(torch.from_file(path, False, self.theta.numel(), dtype=torch.float64))
        x = positions.detach().cpu().to(torch.float64).contiguous()
        b = box.detach().cpu().to(torch.float64).contiguous()
        energy, forces = torch.ops.cgadv.energy_forces(
            x,
            b,
            self.types.cpu(),
            self.theta.cpu(),
            self.ispec.cpu(),
            self.fspec.cpu(),
            self.single,
            self.threads,
        )
        return energy.to(positions), forces.to(positions)
