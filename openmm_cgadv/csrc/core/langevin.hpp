// One step of Langevin dynamics with memory for beads that somebody else keeps.
//
// State s = (v, z_1 .. z_K) per degree of freedom. With x the positions, F the forces:
//   v += dt F/m;  x += dt/2 v;  s <- E s + sqrt(kT/m) S xi;  x += dt/2 v.
// It is the step of rollout.hpp and draws the same noise.
#pragma once

#include <algorithm>
#include <cmath>
#include <sstream>
#include <vector>

#include "../kernels/kernels.hpp"
#include "explosion.hpp"
#include "random.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

// x, v and f [.,3], z [3 K,n] in the order of a.beads. Throws Explosion if a bead moved too far.
inline void langevin_step(const LangevinArgs& a, double* x, double* v, const double* f,
                          double* z) {
  constexpr int L = 64;
  const int64_t n = a.n, R = a.extra + 1, C = 3 * R;
  const double h = 0.5 * a.dt;
  const Noise noise(a.seed, 0);
  struct Chunk {
    int64_t type, from, to;
  };
  std::vector<Chunk> chunks;
  for (int64_t t = 0; t < a.n_types; ++t)
    for (int64_t from = a.first[t]; from < a.first[t + 1]; from += L)
      chunks.push_back({t, from, std::min(from + L, a.first[t + 1])});
  const int used = int(std::max<int64_t>(1, std::min<int64_t>(a.threads, n / 1024)));
  int64_t exploded = -1;  // the first bead that moved too far
  double distance = 0;
#pragma omp parallel num_threads(used) if (used > 1)
  {
    Array<double> xi(C * L), s(C * L), thermal(L);
    double moved[3 * L];
#pragma omp for schedule(static)
    for (std::size_t k = 0; k < chunks.size(); ++k) {
      const Chunk chunk = chunks[k];
      const int64_t from = chunk.from, m = chunk.to - from;
      noise.fill(a.step, m, a.beads + from, int(C), xi.data());
      for (int64_t i = 0; i < m; ++i) {
        const int64_t at = 3 * a.beads[from + i];
        const double kick = a.dt / a.masses[from + i];
        thermal[i] = std::sqrt(a.kT / a.masses[from + i]);
        for (int c = 0; c < 3; ++c) {
          const double kicked = v[at + c] + kick * f[at + c];
          s[c * L + i] = kicked;
          x[at + c] += h * kicked;
        }
      }
      for (int64_t c = 3; c < C; ++c)
        for (int64_t i = 0; i < m; ++i) s[c * L + i] = z[(c - 3) * n + from + i];
      for (int64_t row = 0; row < R; ++row)
        for (int c = 0; c < 3; ++c) {
          double sum[L] = {}, random[L] = {};
          for (int64_t j = 0; j < R; ++j) {
            const double e = a.E[(chunk.type * R + row) * R + j];
            const double* const from_j = &s[(3 * j + c) * L];
#pragma omp simd
            for (int i = 0; i < L; ++i) sum[i] += e * from_j[i];
          }
          for (int64_t j = 0; j <= row; ++j) {
            const double g = a.S[(chunk.type * R + row) * R + j];
            const double* const xi_j = &xi[(3 * j + c) * m];
            for (int64_t i = 0; i < m; ++i) random[i] += g * xi_j[i];
          }
          if (row > 0) {
            double* const to = z + (3 * (row - 1) + c) * n + from;
            for (int64_t i = 0; i < m; ++i) to[i] = sum[i] + thermal[i] * random[i];
          } else {
            for (int64_t i = 0; i < m; ++i) {
              const int64_t at = 3 * a.beads[from + i] + c;
              v[at] = sum[i] + thermal[i] * random[i];
              x[at] += h * v[at];
              moved[c * L + i] = h * (s[c * L + i] + v[at]);
            }
          }
        }
      for (int64_t i = 0; i < m; ++i) {
        const double d = std::max({std::abs(moved[i]), std::abs(moved[L + i]), std::abs(moved[2 * L + i])});
        const double sum = moved[i] + moved[L + i] + moved[2 * L + i];
        if (d <= EXPLODED && std::isfinite(sum)) continue;
#pragma omp critical
        {
          const int64_t bead = a.beads[from + i];
          if (exploded < 0 || bead < exploded)
            exploded = bead,
            distance = std::sqrt(moved[i] * moved[i] + moved[L + i] * moved[L + i] +
                                 moved[2 * L + i] * moved[2 * L + i]);
        }
      }
    }
  }
  if (exploded >= 0) {
    const double* const g = f + 3 * exploded;
    std::ostringstream text;
    text << "bead " << exploded << " moved " << distance << " nm, the force on it is "
         << std::sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2]) << " kJ/mol/nm";
    throw Explosion(text.str(), exploded, a.step);
  }
}

}  // namespace CGADV_ISA
}  // namespace cgadv
