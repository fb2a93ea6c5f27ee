// The step with pairwise friction on the processor, for OpenMM's platforms Reference and CPU.
//
// Double precision on both. Reference: one thread. CPU: the platform's number of threads, which
// changes the order of sums.
#pragma once

#include <memory>

#include "../kernels/choose.hpp"
#include "kernels.hpp"

namespace cgadv {

class PairFrictionIntegrator;

class HostIntegratePairFrictionStepKernel : public IntegratePairFrictionStepKernel {
 public:
  using IntegratePairFrictionStepKernel::IntegratePairFrictionStepKernel;
  void initialize(OpenMM::ContextImpl& context, const BeadIntegrator& integrator) override;
  void execute(OpenMM::ContextImpl& context, const BeadIntegrator& integrator) override;
  double computeKineticEnergy(OpenMM::ContextImpl& context) override;
  void createCheckpoint(std::ostream& stream) const override;
  void loadCheckpoint(std::istream& stream) override;
  void takeMoment(double* moment) override { stepper_->collect_moment(moment); }
  void serialize(OpenMM::SerializationNode& node) const override;
  void deserialize(const OpenMM::SerializationNode& node) override;

 private:
  // The pairs [.,2] in range and their auxiliary variables [.,3 K].
  struct Pairs {
    std::vector<int32_t> beads;
    std::vector<double> auxiliary;
  };

  std::vector<int32_t> beads_;  // that have a mass
  std::vector<int64_t> types_;
  std::vector<double> masses_;
  std::unique_ptr<PairStepper> stepper_;
  int64_t n_types_ = 0, extra_ = 0, seed_ = 0, step_ = 0, revision_ = -1;
  double dt_ = -1;
  int threads_ = 1;

  void configure(const PairFrictionIntegrator& integrator);
  // After it steps depend on these pairs and on nothing before, as after loading them.
  Pairs settle() const;
  bool valid(const Pairs& pairs, int64_t step) const;
};

}  // namespace cgadv
