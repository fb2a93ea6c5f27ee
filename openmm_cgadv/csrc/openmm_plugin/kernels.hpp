// What a platform must be able to compute; host.hpp and pair_host.hpp do it for Reference and CPU. A
// platform that is added later brings classes of its own for these and registers them in plugin.cpp.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "openmm/KernelImpl.h"
#include "openmm/internal/ContextImpl.h"

namespace OpenMM {
class SerializationNode;
}

namespace cgadv {

class BeadIntegrator;
class CGPotentialForce;

class CalcCGPotentialForceKernel : public OpenMM::KernelImpl {
 public:
  static std::string Name() { return "CalcCGPotentialForce"; }
  using KernelImpl::KernelImpl;
  virtual void initialize(OpenMM::ContextImpl& context, const CGPotentialForce& force) = 0;
  virtual double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy) = 0;
  virtual void copyParametersToContext(OpenMM::ContextImpl& context,
                                       const CGPotentialForce& force) = 0;
  virtual void forget() = 0;
};

// A step of the integrator that names it.
class IntegrateBeadStepKernel : public OpenMM::KernelImpl {
 public:
  using KernelImpl::KernelImpl;
  virtual void initialize(OpenMM::ContextImpl& context, const BeadIntegrator& integrator) = 0;
  virtual void execute(OpenMM::ContextImpl& context, const BeadIntegrator& integrator) = 0;
  virtual double computeKineticEnergy(OpenMM::ContextImpl& context) = 0;
  virtual void createCheckpoint(std::ostream& stream) const = 0;
  virtual void loadCheckpoint(std::istream& stream) = 0;
  // What States hold of it.
  virtual void serialize(OpenMM::SerializationNode& node) const = 0;
  virtual void deserialize(const OpenMM::SerializationNode& node) = 0;
};

class IntegratePairFrictionStepKernel : public IntegrateBeadStepKernel {
 public:
  using IntegrateBeadStepKernel::IntegrateBeadStepKernel;
  virtual void takeMoment(double* moment) = 0;
};

}  // namespace cgadv
