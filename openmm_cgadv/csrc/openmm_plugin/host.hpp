// The kernels on the processor, for OpenMM's platforms Reference and CPU.
//
// Reference: double precision, one thread, and forces that are a function of the positions to the
// last bit. CPU: the platform's number of threads, and a neighbour list that is kept from step to
// step, so that the order of sums depends on where the list was built.
#pragma once

#include <memory>

#include "../kernels/choose.hpp"
#include "kernels.hpp"
#include "openmm/KernelFactory.h"
#include "openmm/reference/ReferencePlatform.h"

namespace cgadv {

class HostCalcCGPotentialForceKernel : public CalcCGPotentialForceKernel {
 public:
  using CalcCGPotentialForceKernel::CalcCGPotentialForceKernel;
  void initialize(OpenMM::ContextImpl& context, const CGPotentialForce& force) override;
  double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy) override;
  void copyParametersToContext(OpenMM::ContextImpl& context,
                               const CGPotentialForce& force) override;
  void forget() override;

 private:
  struct Release {
    void operator()(SystemEvaluator* f) const { cgadv::kernels().release(f); }
  };
  std::unique_ptr<SystemEvaluator, Release> evaluator_;
  std::vector<double> theta_, positions_, forces_;  // of a subset the latter two
  std::vector<int64_t> particles_;
  bool keeps_list_ = true;
  int threads_ = 1;
};

class HostIntegrateGeneralizedLangevinStepKernel : public IntegrateBeadStepKernel {
 public:
  using IntegrateBeadStepKernel::IntegrateBeadStepKernel;
  void initialize(OpenMM::ContextImpl& context, const BeadIntegrator& integrator) override;
  void execute(OpenMM::ContextImpl& context, const BeadIntegrator& integrator) override;
  double computeKineticEnergy(OpenMM::ContextImpl& context) override;
  void createCheckpoint(std::ostream& stream) const override;
  void loadCheckpoint(std::istream& stream) override;
  void serialize(OpenMM::SerializationNode& node) const override;
  void deserialize(const OpenMM::SerializationNode& node) override;

 private:
  std::vector<int32_t> beads_;  // that have a mass, by type
  std::vector<int64_t> first_;  // of each type
  std::vector<double> masses_, E_, S_;
  std::vector<double> z_;       // [3 K,beads]; empty before the first step
  int64_t extra_ = 0, seed_ = 0, step_ = 0, particles_ = 0, revision_ = -1;
  double kT_ = 0, dt_ = -1;
  int threads_ = 1;

  void start();
  std::vector<double> auxiliary() const;
  void set_auxiliary(const std::vector<double>& z);
};

class HostKernelFactory : public OpenMM::KernelFactory {
 public:
  OpenMM::KernelImpl* createKernelImpl(std::string name, const OpenMM::Platform& platform,
                                       OpenMM::ContextImpl& context) const override;
};

}  // namespace cgadv
