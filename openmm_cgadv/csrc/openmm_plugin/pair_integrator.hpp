// Pairwise friction with memory, which keeps momentum, as an OpenMM Integrator.
#pragma once

#include "bead_integrator.hpp"

namespace cgadv {

// Every pair of beads closer than r_cut carries K auxiliary vectors, and friction and noise act
// between the two. A step of dt:
//   v += dt F/m;  x += dt/2 v;  friction of pairs at x;  x += dt/2 v
// as in openmm_cgadv/dynamics/pair_rollout.py, where each bead may have friction of its own as well,
// and with the noise of a rollout: a function of the
// seed, the step and the numbers of the two beads among those that have a mass. Auxiliary vectors
// are drawn from their stationary distribution when two beads come together and at the first step.
// They belong to checkpoints, with seed and count of steps, and to States, with the count of steps.
class PairFrictionIntegrator : public BeadIntegrator {
 public:
  static std::string Kernel() { return "IntegratePairFrictionStep"; }

  // Pairs of types a <= b are in the order of the upper triangle's rows.
  struct Friction {
    int64_t n_types = 0, extra = 0;  // extra: auxiliary vectors a pair, K
    double r_cut = 0;                // nm
    std::vector<double> r_min;       // [kinds], nm
    std::vector<double> splines;     // [kinds,K+1,2,n_basis]; f_0 in ps^(-1/2), the others in 1/ps
    std::vector<double> memory;      // [kinds,K,K], 1/ps
    std::vector<double> self;        // [n_types], friction of each bead, 1/ps

    int64_t kinds() const { return n_types * (n_types + 1) / 2; }
    int64_t n_basis() const { return int64_t(splines.size()) / (kinds() * (extra + 1) * 2); }
  };

  // types of all particles; temperature (K); stepSize (ps); tolerance: where the solver of the
  // velocities stops, beside the velocities themselves.
  PairFrictionIntegrator(Friction friction, std::vector<int64_t> types, double temperature,
                         double stepSize, double tolerance);

  const Friction& friction() const { return friction_; }
  // Takes effect at the next step, also of a live Context. K and the number of types stay.
  void setFriction(Friction friction);
  double getTolerance() const { return tolerance_; }
  void setTolerance(double tolerance);
  // Sum of r_a p_b over pairs and the steps since the last call, r = x_i - x_j and p the momentum
  // that friction and noise gave to i (kJ/mol ps); [3,3]. The first call begins to count.
  void takeMoment(double* moment);

 private:
  Friction friction_;
  double tolerance_;

  void check(const Friction& friction) const;
};

}  // namespace cgadv
