// What stops a rollout: a bead that moves too far in a step.
#pragma once

#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>

#include "errors.hpp"
#include "simd.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

// A bead has exploded when a component of its displacement in a step is longer (nm).
constexpr double EXPLODED = 0.2;

// The largest of what it was and a new value. A NaN is larger than any number, and stays.
CGADV_INLINE void raise_to(double& largest, double value) {
  if (value > largest || value != value) largest = value;
}

// What is said of a step in which beads moved by h (before + after), and the bead that moved farthest.
// Velocities and forces are [3,n]; `beads` are the names of their places, or null for the places
// themselves.
struct Farthest {
  int64_t bead;
  std::string text;
};

inline Farthest farthest_moved(int64_t n, double h, const double* before, const double* after,
                               const double* force, const int32_t* beads) {
  double worst = -1, largest = 0;
  int64_t bead = 0;
  for (int64_t i = 0; i < n; ++i) {
    double d2 = 0, f2 = 0;
    for (int c = 0; c < 3; ++c) {
      const double d = h * (before[c * n + i] + after[c * n + i]);
      d2 += d * d;
      f2 += force[c * n + i] * force[c * n + i];
    }
    raise_to(largest, f2);
    if (!(d2 <= worst) && !std::isnan(worst)) worst = d2, bead = i;
  }
  if (beads) bead = beads[bead];
  std::ostringstream text;
  text << "bead " << bead << " moved " << std::sqrt(worst) << " nm, largest force "
       << std::sqrt(largest) << " kJ/mol/nm";
  return {bead, text.str()};
}

// Throws it for step t of `steps` of a rollout.
[[noreturn]] inline void throw_explosion(int64_t t, int64_t steps, int64_t replica, int64_t n,
                                         double h, const double* before, const double* after,
                                         const double* force, const int32_t* beads) {
  const Farthest farthest = farthest_moved(n, h, before, after, force, beads);
  throw Explosion("rollout exploded at step " + std::to_string(t + 1) + " of " +
                      std::to_string(steps) + " in replica " + std::to_string(replica) + ": " +
                      farthest.text,
                  farthest.bead, t, replica);
}

}  // namespace CGADV_ISA
}  // namespace cgadv
