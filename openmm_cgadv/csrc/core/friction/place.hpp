// Where a pack of pairs is, and its friction functions there.
#pragma once

#include <type_traits>

#include "../box.hpp"
#include "../errors.hpp"
#include "../random.hpp"
#include "tables.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

namespace pairs {

using V = Pack<double>;
constexpr int W = Simd<double>::W;
static_assert(NOISE_LANES % W == 0, "a batch of noise is made of packs");

// Calls f with the number of auxiliary vectors as a constant.
template <class F>
void with_extra(int extra, F f) {
  switch (extra) {
    case 0: return f(std::integral_constant<int, 0>());
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    case 4: return f(std::integral_constant<int, 4>());
    case 5: return f(std::integral_constant<int, 5>());
    case 6: return f(std::integral_constant<int, 6>());
    default: throw InvalidInput("pair friction has more auxiliary vectors than " +
                                      std::to_string(MAX_PAIR_EXTRA));
  }
}

CGADV_INLINE V widen(const float* p) {
  typedef float Half __attribute__((vector_size(CGADV_BYTES / 2)));
  Half h;
  __builtin_memcpy(&h, p, sizeof h);
  return __builtin_convertvector(h, V);
}

CGADV_INLINE Index<double> numbers() {
  return __builtin_convertvector(lanes<double>(), Index<double>);
}

CGADV_INLINE V dot(const V* a, const V* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// out = difference of records i and j.
CGADV_INLINE void difference(const double* records, const int32_t* i, const int32_t* j, V* out) {
  V a[4], b[4];
  fetch4(records, i, a);
  fetch4(records, j, b);
  for (int c = 0; c < 3; ++c) out[c] = a[c] - b[c];
}

CGADV_INLINE void scatter(double* records, const int32_t* i, const int32_t* j, const V* g) {
  const V plus[4] = {g[0], g[1], g[2], V{}}, minus[4] = {-g[0], -g[1], -g[2], V{}};
  add4(records, i, plus);
  add4(records, j, minus);
}

// Where a pack of pairs is and its functions there.
template <int K>
struct Place {
  V unit[3], inverse;  // from i to j; 1/r
  V mass, inverse_mass;  // mu, 1/mu
  V t;
  Index<double> row;
  V f[2 * K + 2], slope[2 * K + 2];

  // From records (x, y, z, 1/m).
  template <bool SLOPES>
  CGADV_INLINE void find(const PairTables& tables, int kind, const PackBox<double>& box,
                         const double* records, const int32_t* i, const int32_t* j) {
    const PairFrictionShape& s = tables.shape;
    V r, a[4], b[4];
    fetch4(records, j, a);
    fetch4(records, i, b);
    for (int c = 0; c < 3; ++c) unit[c] = a[c] - b[c];
    inverse_mass = (a[3] + b[3]) * 0.5;
    mass = broadcast(1.0) / inverse_mass;
    auto same = [](V v) { return v; };
    box.nearest(unit[0], unit[1], unit[2], same);
    const V r2 = dot(unit, unit);
    const Mask<double> apart = r2 > V{};
    r = sqrt(r2);
    inverse = apart ? broadcast(1.0) / r : V{};
    for (int c = 0; c < 3; ++c) unit[c] *= inverse;
    const V width = broadcast(s.n_basis / (s.r_cut - s.r_min[kind]));
    t = (r - broadcast(s.r_min[kind])) * width;
    row = locate<double>(t, broadcast(double(s.n_basis)), same);
    for (int k = 0; k < 2 * K + 2; ++k) {
      const int number = kind * (2 * K + 2) + k;
      V c[4];
      coefficients(&tables.table[number * s.rows() * 4],
                   tables.columns.empty() ? nullptr : &tables.columns[number * 128], s.rows(), row,
                   c);
      const V value = ((c[3] * t + c[2]) * t + c[1]) * t + c[0];
      f[k] = apart ? value : V{};
      if (SLOPES) {
        const V rate = ((t * (c[3] * 3.0) + c[2] * 2.0) * t + c[1]) * width;
        slope[k] = apart ? rate : V{};
      }
    }
  }

  // g[k] = sum_l matrix[k * to_row + l * to_column] f_l, along and across.
  CGADV_INLINE void respond(const double* matrix, int to_row, int to_column, V (*g)[2]) const {
    for (int k = 0; k < K; ++k)
      for (int d = 0; d < 2; ++d) {
        g[k][d] = V{};
        for (int l = 0; l < K; ++l)
          g[k][d] += f[2 * l + 2 + d] * matrix[k * to_row + l * to_column];
      }
  }

  // Drag of a pair, mu (h T_0^2 + h^2 sum_k T_k g_k): into the solver's geometry, and of the
  // relative velocity u taken off the force.
  CGADV_INLINE void drag(const V (*g)[2], double h, double* geometry, const V* u, V* force) const {
    V sum[2];
    for (int d = 0; d < 2; ++d) {
      sum[d] = V{};
      for (int k = 0; k < K; ++k) sum[d] += f[2 * k + 2 + d] * g[k][d];
      sum[d] = mass * (f[d] * f[d] * h + sum[d] * (h * h));
    }
    const V across = sum[1], excess = sum[0] - across, along = excess * dot(u, unit);
    for (int c = 0; c < 3; ++c) {
      force[c] -= across * u[c] + along * unit[c];
      store<double>(geometry + c * W, unit[c]);
    }
    store<double>(geometry + 3 * W, across);
    store<double>(geometry + 4 * W, excess);
  }

  // out += sum_k T_k y_k of the auxiliary vectors y.
  CGADV_INLINE void couple(const V (*y)[3], V* out) const {
    V along{};
    for (int k = 0; k < K; ++k) {
      const V across = f[2 * k + 3];
      along += (f[2 * k + 2] - across) * dot(unit, y[k]);
      for (int c = 0; c < 3; ++c) out[c] += across * y[k][c];
    }
    for (int c = 0; c < 3; ++c) out[c] += along * unit[c];
  }
};

}  // namespace pairs

}  // namespace CGADV_ISA
}  // namespace cgadv
