// One step with pairwise friction:
//
//   v += dt F/m;  x += dt/2 v;  friction of pairs at x;  x += dt/2 v.
#pragma once

#include <algorithm>
#include <cmath>

#include "explosion.hpp"
#include "friction/step.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

// Positions x, velocities v and forces [3,n]. `before` takes the velocities ahead of the friction,
// `middle`, if not null, the positions there. False if a bead exploded; x and v are then worth
// nothing but to describe it.
inline bool pair_step(PairFriction& friction, int64_t t, const PairNoise& noise, const Box& box,
                      double dt, int64_t n, const double* masses, const double* force, double* x,
                      double* v, double* before, double* middle) {
  const double h = 0.5 * dt;
  double largest = 0;
  for (int c = 0; c < 3; ++c)
    for (int64_t i = 0; i < n; ++i) {
      double& w = v[c * n + i];
      w += dt / masses[i] * force[c * n + i];
      x[c * n + i] += h * w;
      const double moved = std::abs(dt * w);
      raise_to(largest, moved);
    }
  std::copy(v, v + 3 * n, before);
  if (!(largest <= EXPLODED)) return false;
  if (middle) std::copy(x, x + 3 * n, middle);
  friction.step(t, noise, {x, 1, n}, box, v, 1, n);
  for (int64_t i = 0; i < 3 * n; ++i) {
    x[i] += h * v[i];
    const double moved = h * std::abs(before[i] + v[i]);
    raise_to(largest, moved);
  }
  return largest <= EXPLODED;
}

}  // namespace CGADV_ISA
}  // namespace cgadv
