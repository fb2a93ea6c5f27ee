// What the integrators of beads have in common.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "openmm/Integrator.h"
#include "openmm/Kernel.h"

namespace cgadv {

// Every particle of the System has a bead type. There is a thermostat, noise with a seed, and
// auxiliary variables that a kernel keeps: they belong to checkpoints and States.
class BeadIntegrator : public OpenMM::Integrator {
 public:
  const std::vector<int64_t>& types() const { return types_; }
  double getTemperature() const { return temperature_; }
  // Takes effect at the next step, also of a live Context.
  void setTemperature(double temperature);
  int64_t revision() const { return revision_; }  // changes with temperature and friction
  // 0: a fresh one is drawn whenever a Context is created.
  int getRandomNumberSeed() const { return seed_; }
  void setRandomNumberSeed(int seed) { seed_ = seed; }
  void step(int steps) override;

 protected:
  // name: of the class, for messages. kernel: name of an IntegrateBeadStepKernel.
  BeadIntegrator(std::string name, std::string kernel, int64_t n_types, std::vector<int64_t> types,
                 double temperature, double stepSize);

  [[noreturn]] void refuse(const std::string& sentence) const;
  void changed() { ++revision_; }
  OpenMM::Kernel& kernel();
  void initialize(OpenMM::ContextImpl& context) override;
  void cleanup() override;
  std::vector<std::string> getKernelNames() override { return {kernel_name_}; }
  double computeKineticEnergy() override;
  bool kineticEnergyRequiresForce() const override { return false; }
  void createCheckpoint(std::ostream& stream) const override;
  void loadCheckpoint(std::istream& stream) override;
  void serializeParameters(OpenMM::SerializationNode& node) const override;
  void deserializeParameters(const OpenMM::SerializationNode& node) override;

 private:
  std::string name_, kernel_name_;
  std::vector<int64_t> types_;
  double temperature_;
  int64_t revision_ = 0;
  int seed_ = 0;
  OpenMM::Kernel kernel_;

  void forgetForces() const;
};

}  // namespace cgadv
