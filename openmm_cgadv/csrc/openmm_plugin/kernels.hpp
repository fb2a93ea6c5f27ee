// What a platform must be able to compute; host.hpp does it for Reference and CPU. A platform that
// is added later brings classes of its own for these and registers them in plugin.cpp.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "openmm/KernelImpl.h"
#include "openmm/internal/ContextImpl.h"

namespace cgadv {

class CGPotentialForce;
class GeneralizedLangevinIntegrator;

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

class IntegrateGeneralizedLangevinStepKernel : public OpenMM::KernelImpl {
 public:
  static std::string Name() { return "IntegrateGeneralizedLangevinStep"; }
  using KernelImpl::KernelImpl;
  virtual void initialize(OpenMM::ContextImpl& context,
                          const GeneralizedLangevinIntegrator& integrator) = 0;
  virtual void execute(OpenMM::ContextImpl& context,
                       const GeneralizedLangevinIntegrator& integrator) = 0;
  virtual double computeKineticEnergy(OpenMM::ContextImpl& context) = 0;
  virtual void createCheckpoint(std::ostream& stream) const = 0;
  virtual void loadCheckpoint(std::istream& stream) = 0;
  // z (nm/ps) of all particles [particle][k][axis]; empty before the first step.
  virtual std::vector<double> getAuxiliary() const = 0;
  virtual void setAuxiliary(const std::vector<double>& z) = 0;
};

}  // namespace cgadv
