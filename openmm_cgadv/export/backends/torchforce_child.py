"""Program that computes with a TorchForce on the named OpenMM platforms, or reads one back from XML.

The first argument is a library to load before OpenMM, or empty. The output is that of
:func:`openmm_cgadv.attempts.run_each`. The program does not import this package, because torch has
to be imported before OpenMM, which then finds the libraries of torch that its plugins are linked to.
"""

import ctypes
import logging
import sys

import torch

XML = "XML"
"""Name that stands for a test of serialization instead of a platform."""


class Probe(torch.nn.Module):
    """Energy that is the sum of the squared coordinates."""

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return (positions * positions).sum()


def attempt(name: str) -> None:
    """Compare the force on one particle with the exact value, or serialize a System and read it back."""
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(openmmtorch.TorchForce(torch.jit.script(Probe())))
    if name == XML:
        openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
        return
    platform = openmm.Platform.getPlatform(name)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions([[1.0, 0.0, 0.0]])
    force = context.getState(forces=True).getForces(asNumpy=True)._value[0, 0]
    if abs(force + 2.0) > 1e-4:
        raise ValueError(f"found a force of {force:g} kJ/mol/nm, expected -2")


if __name__ == "__main__":
    preload, *names = sys.argv[1:]
    if preload:
        ctypes.CDLL(preload, mode=ctypes.RTLD_GLOBAL)
    import openmm

    # OpenMM-Torch imports OpenMM under its former name, which logs a warning.
    logging.disable(logging.WARNING)
    import openmmtorch

    for each in names:
        print("begin", each, flush=True)
        try:
            attempt(each)
        except Exception as error:
            failures = " ".join(openmm.Platform.getPluginLoadFailures())
            print("fails", " ".join(f"{error} {failures}".split()), flush=True)
        else:
            print("works", flush=True)
