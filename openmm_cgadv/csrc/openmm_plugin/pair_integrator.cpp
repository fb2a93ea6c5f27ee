// Parameters of the integrator and their checks. `pair_host.cpp` runs it, and the step is in `core/pair_step.hpp`.
#include "pair_integrator.hpp"

#include <cmath>

#include "kernels.hpp"
#include "numbers.hpp"

namespace cgadv {

namespace {

constexpr int64_t MAX_EXTRA = 6;  // as in csrc/core/friction/tables.hpp

}  // namespace

PairFrictionIntegrator::PairFrictionIntegrator(Friction friction, std::vector<int64_t> types,
                                               double temperature, double stepSize,
                                               double tolerance)
    : BeadIntegrator("PairFrictionIntegrator", Kernel(), friction.n_types, std::move(types),
                     temperature, stepSize),
      friction_(std::move(friction)) {
  check(friction_);
  setTolerance(tolerance);
}

void PairFrictionIntegrator::check(const Friction& f) const {
  const int64_t kinds = f.kinds(), K = f.extra, functions = kinds * (K + 1) * 2;
  if (f.n_types < 1) refuse("found no bead types, expected one or more");
  if (K < 0 || K > MAX_EXTRA)
    refuse("found " + std::to_string(K) + " auxiliary vectors a pair, expected up to " +
           std::to_string(MAX_EXTRA));
  if (int64_t(f.r_min.size()) != kinds)
    refuse("found " + std::to_string(f.r_min.size()) + " ranges r_min, expected " +
           std::to_string(kinds) + ", one for each pair of bead types");
  if (f.splines.empty() || int64_t(f.splines.size()) % functions != 0)
    refuse("found " + std::to_string(f.splines.size()) + " spline coefficients, expected as many "
           "for each of " + std::to_string(functions) + " functions");
  if (int64_t(f.memory.size()) != kinds * K * K)
    refuse("found " + std::to_string(f.memory.size()) + " numbers of memory, expected " +
           std::to_string(kinds * K * K));
  if (int64_t(f.self.size()) != f.n_types)
    refuse("found " + std::to_string(f.self.size()) + " frictions of single beads, expected " +
           std::to_string(f.n_types) + ", one for each bead type");
  if (!finite(f.r_min) || !finite(f.splines) || !finite(f.memory) || !finite(f.self) ||
      !std::isfinite(f.r_cut))
    refuse("found friction that is not finite, expected numbers");
  for (const double r : f.r_min)
    if (!(r >= 0 && r < f.r_cut))
      refuse("found r_min of " + std::to_string(r) + " nm, expected it from 0 to the range of " +
             std::to_string(f.r_cut) + " nm");
  for (const double friction : f.self)
    if (friction < 0)
      refuse("found friction of single beads of " + std::to_string(friction) +
             "/ps, expected 0 or more");
  for (int64_t k = 0; k < kinds; ++k)
    for (int64_t i = 0; i < K; ++i) {
      const double* const A = f.memory.data() + k * K * K;
      if (!(A[i * K + i] > 0))
        refuse("found a rate of memory of " + std::to_string(A[i * K + i]) +
               "/ps, expected more than 0");
      for (int64_t j = 0; j < i; ++j)
        if (std::abs(A[i * K + j] + A[j * K + i]) > 1e-9 * (std::abs(A[i * K + j]) + A[i * K + i]))
          refuse("found memory with a symmetric coupling, for which friction and noise would not "
                 "balance, expected rates and antisymmetric couplings");
    }
}

void PairFrictionIntegrator::setFriction(Friction friction) {
  check(friction);
  if (friction.n_types != friction_.n_types || friction.extra != friction_.extra)
    refuse("found friction of " + std::to_string(friction.n_types) + " bead types with " +
           std::to_string(friction.extra) + " auxiliary vectors a pair, expected " +
           std::to_string(friction_.n_types) + " with " + std::to_string(friction_.extra));
  friction_ = std::move(friction);
  changed();
}

void PairFrictionIntegrator::takeMoment(double* moment) {
  kernel().getAs<IntegratePairFrictionStepKernel>().takeMoment(moment);
}

void PairFrictionIntegrator::setTolerance(double tolerance) {
  // A looser solver cools: 60/ps at 10 fs by 0.1 % at 0.001, by 0.6 % at 0.01 and by 7 % at 0.1.
  if (!(tolerance > 0 && tolerance <= 1e-3))
    refuse("found a tolerance of " + std::to_string(tolerance) +
           ", expected more than 0 and at most 0.001");
  tolerance_ = tolerance;
  changed();
}

}  // namespace cgadv
