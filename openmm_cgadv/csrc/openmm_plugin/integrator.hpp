// Langevin dynamics with memory, or with one friction for each bead type, as an OpenMM Integrator.
#pragma once

#include "bead_integrator.hpp"

namespace cgadv {

// Every degree of freedom carries s = (v, z_1 .. z_K). A step of dt:
//   v += dt F/m;  x += dt/2 v;  s <- E s + sqrt(kT/m) S xi;  x += dt/2 v
// with E = exp(-A dt) and S S^T = 1 - E E^T, A (1/ps) a matrix for each bead type. z is drawn from
// its stationary distribution at the first step and belongs to checkpoints, with seed and count of
// steps, and to States. It draws the noise of a rollout (csrc/core/random.hpp) with the particle's
// number as that of the bead.
class GeneralizedLangevinIntegrator : public BeadIntegrator {
 public:
  static std::string Kernel() { return "IntegrateGeneralizedLangevinStep"; }

  // drift [n_types,K+1,K+1] (1/ps); types of all particles; temperature (K); stepSize (ps).
  GeneralizedLangevinIntegrator(std::vector<double> drift, int64_t n_types,
                                std::vector<int64_t> types, double temperature, double stepSize);

  const std::vector<double>& drift() const { return drift_; }
  int64_t numTypes() const { return n_types_; }
  int64_t size() const { return size_; }  // K + 1
  // Takes effect at the next step, also of a live Context.
  void setDrift(std::vector<double> drift);

 private:
  std::vector<double> drift_;
  int64_t n_types_, size_;
};

}  // namespace cgadv
