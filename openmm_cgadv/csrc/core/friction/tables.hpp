// Parameters of pairwise friction with memory, made ready for one time step. The equations are those
// of openmm_cgadv/dynamics/pairwise.py and pairwise_rollout.py.
#pragma once

#include <cmath>

#include "../spline.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

constexpr int MAX_PAIR_EXTRA = 6;

struct PairFrictionShape {
  int n_types, extra, n_basis;  // extra: auxiliary vectors a pair, K
  double r_cut;
  const double* r_min;    // [kinds]
  const double* splines;  // [kinds,K+1,2,n_basis]
  const double* memory;   // [kinds,K,K]
  const double* self;     // [n_types], friction of each bead
  double kT, dt, tolerance;

  int kinds() const { return n_types * (n_types + 1) / 2; }
  int functions() const { return 2 * (extra + 1); }
  int rows() const { return n_basis + 2; }
  int kind(int64_t a, int64_t b) const {
    if (a > b) std::swap(a, b);
    return int(a * n_types - a * (a - 1) / 2 + b - a);
  }
};

// The parameters, made ready for one time step. Function 2 k is f_k along the pair, 2 k + 1 across.
struct PairTables {
  PairFrictionShape shape;
  Array<double> table, columns;  // of kind * functions + function
  std::vector<double> inverse;   // C = (1 + dt/2 A)^-1 [kinds,K,K]
  std::vector<double> root;      // sqrt(alpha) [kinds,K]

  explicit PairTables(const PairFrictionShape& s) : shape(s) {
    const int rows = s.rows(), K = s.extra;
    std::vector<double> all(s.kinds() * s.functions() * rows * 4, 0.0);
    for (int f = 0; f < s.kinds() * s.functions(); ++f)
      spline_rows(s.n_basis, [&](int row, int d, int k, double w) {
        all[(f * rows + row) * 4 + d] += w * s.splines[f * s.n_basis + k];
      });
    table.assign(all.begin(), all.end());
    make_columns(all, rows, columns);
    for (int kind = 0; kind < s.kinds(); ++kind) {
      // Gauss and Jordan; a matrix whose symmetric part is positive needs no pivots.
      std::vector<double> m(2 * K * K, 0.0);
      const int width = 2 * K;
      for (int i = 0; i < K; ++i) {
        for (int j = 0; j < K; ++j)
          m[i * width + j] = 0.5 * s.dt * s.memory[(kind * K + i) * K + j] + (i == j ? 1 : 0);
        m[i * width + K + i] = 1;
        root.push_back(std::sqrt(s.memory[(kind * K + i) * K + i]));
      }
      for (int i = 0; i < K; ++i) {
        const double pivot = m[i * width + i];
        for (int c = 0; c < width; ++c) m[i * width + c] /= pivot;
        for (int j = 0; j < K; ++j) {
          const double factor = m[j * width + i];
          if (j != i)
            for (int c = 0; c < width; ++c) m[j * width + c] -= factor * m[i * width + c];
        }
      }
      for (int i = 0; i < K; ++i)
        for (int j = 0; j < K; ++j) inverse.push_back(m[i * width + K + j]);
    }
  }
  PairTables(const PairTables&) = delete;
};

}  // namespace CGADV_ISA
}  // namespace cgadv
