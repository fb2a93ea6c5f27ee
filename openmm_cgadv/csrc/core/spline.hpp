// The learned energy's parameters, unpacked into tables that the kernels read.
//
// Every spline becomes one cubic polynomial per interval. With h = (r_max - r_min)/n and
// t = (r - r_min)/h - floor(...), row 1 + k holds interval k. Row 0 is r < r_min (linear
// continuation plus the repulsive core, itself a cubic in t), row n + 1 is r >= r_max (zero),
// so that no branch is needed.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "simd.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

// Coefficients of t^0..t^3 from the four B-splines alive in an interval.
constexpr double BSPLINE[4][4] = {{1. / 6, -3. / 6, 3. / 6, -1. / 6},
                                  {4. / 6, 0, -6. / 6, 3. / 6},
                                  {1. / 6, 3. / 6, 3. / 6, -3. / 6},
                                  {0, 0, 0, 1. / 6}};

// Calls f(row, power, k, weight) for every nonzero d table[row][power] / d c[k].
template <class F>
inline void spline_rows(int n, F f) {
  for (int row = 1; row <= n; ++row)
    for (int s = 0; s < 4; ++s)
      if (row - 1 + s < n)
        for (int d = 0; d < 4; ++d)
          if (BSPLINE[s][d] != 0) f(row, d, row - 1 + s, BSPLINE[s][d]);
  for (int s = 0; s < 3 && s < n; ++s) {
    f(0, 0, s, BSPLINE[s][0]);
    if (BSPLINE[s][1] != 0) f(0, 1, s, BSPLINE[s][1]);
  }
}

constexpr int MAX_L = 8;

// What PotentialSpec says, from its packed form (see openmm_cgadv/kernels.py).
struct Spec {
  int n_types, n_pairs, n_basis, n_basis3, n_radial, l_max;
  bool three_body;
  double r_cut, r_min3, r_cut3;
  std::vector<double> r_min, core, radial;

  Spec(const int64_t* ints, int64_t n_ints, const double* floats, int64_t n_floats) {
    if (n_ints != 6) throw std::runtime_error("packed potential has a wrong number of integers");
    n_types = int(ints[0]), n_basis = int(ints[1]), three_body = ints[2] != 0;
    n_basis3 = int(ints[3]), n_radial = int(ints[4]), l_max = int(ints[5]);
    n_pairs = n_types * (n_types + 1) / 2;
    const int64_t expected = 1 + 2 * n_pairs + (three_body ? 2 + n_radial * n_basis3 : 0);
    if (n_types < 1 || n_basis < 1 || n_floats != expected)
      throw std::runtime_error("packed potential has a wrong number of floats");
    if (three_body && l_max > MAX_L)
      throw std::runtime_error("the compiled kernels handle three-body l_max up to " +
                               std::to_string(MAX_L) + ", not " + std::to_string(l_max));
    r_cut = *floats++;
    r_min.assign(floats, floats + n_pairs), floats += n_pairs;
    core.assign(floats, floats + n_pairs), floats += n_pairs;
    r_min3 = r_cut3 = 0;
    if (three_body) {
      r_min3 = *floats++, r_cut3 = *floats++;
      radial.assign(floats, floats + n_radial * n_basis3);
    }
  }

  int channels() const { return n_types * n_radial; }
  int n_pair_parameters() const { return n_pairs * n_basis; }
  int n_three_body_parameters() const {
    return three_body ? n_types * channels() * (channels() + 1) / 2 * (l_max + 1) : 0;
  }
  int n_parameters() const { return n_pair_parameters() + n_three_body_parameters(); }
  double longest() const { return three_body && r_cut3 > r_cut ? r_cut3 : r_cut; }
  int pair(int a, int b) const {
    if (a > b) std::swap(a, b);
    return a * n_types - a * (a - 1) / 2 + b - a;
  }
};

// Legendre polynomials as sums of monomials: P_l(x) = sum_p LEGENDRE[l][p] x^p.
struct Legendre {
  double c[MAX_L + 1][MAX_L + 1] = {};
  Legendre() {
    c[0][0] = 1;
    c[1][1] = 1;
    for (int l = 2; l <= MAX_L; ++l)
      for (int p = 0; p <= l; ++p)
        c[l][p] = ((2 * l - 1) * (p ? c[l - 1][p - 1] : 0) - (l - 1) * c[l - 2][p]) / l;
  }
};

// Degree at which the angular polynomials are evaluated: the next even number.
inline int padded_degree(int l_max) { return l_max <= 2 ? 2 : (l_max + 1) / 2 * 2; }

// Which cubic (row of a table) r falls into; t becomes the variable of that cubic. `last` is the
// number of intervals.
template <class T, class S, class Value>
CGADV_INLINE Index<T> locate(S& t, Pack<T> last, Value value) {
  Pack<T> start = floor(value(t));
  // A NaN goes to row 0: an index must not come of it.
  start = start >= Pack<T>{} ? start : Pack<T>{} - T(1);
  start = start > last ? last : start;
  t = t - (start < Pack<T>{} ? Pack<T>{} : start);
  return __builtin_convertvector(start, Index<T>) + 1;
}

// Coefficients of t^0..t^3, from records of four or, where there are any, from columns of `rows`.
template <class T>
CGADV_INLINE void coefficients(const T* records, const T* columns, int rows, Index<T> row,
                               Pack<T>* c) {
  if (SMALL_TABLES && columns != nullptr) {
    look_up(columns, rows, row, c);
  } else {
    int32_t index[Simd<T>::W];
    __builtin_memcpy(index, &row, sizeof row);
    fetch4(records, index, c);
  }
}

// Tables [tables][rows][4] as columns [tables][4][32], for instruction sets that look up in
// registers; empty where there are more than 32 rows.
template <class T>
inline void make_columns(const std::vector<double>& table, int rows, Array<T>& out) {
  if (!SMALL_TABLES || rows > 32) return;
  const int tables = int(table.size()) / (4 * rows);
  out.assign(tables * 128, T(0));
  for (int t = 0; t < tables; ++t)
    for (int row = 0; row < rows; ++row)
      for (int d = 0; d < 4; ++d) out[t * 128 + d * 32 + row] = T(table[(t * rows + row) * 4 + d]);
}

template <class T>
struct Tables {
  // pair[(p * rows + row) * 4 + d]; radial[(n * rows3 + row) * 4 + d];
  // angular[((a * Q + q) * Q + q') * (degree + 1) + p], symmetric in q, q':
  //   U3 = 1/2 sum_i sum_{j != k} sum_{q q' p} angular g_q(r_ij) g_q'(r_ik) cos^p.
  // offset, r_min and inverse_width belong to a pair of types [a * n_types + b].
  Array<T> pair, radial, angular;
  Array<T> r_min, inverse_width;
  std::vector<int32_t> offset;
  // The same coefficients in columns; for pairs only where there is one type.
  Array<T> pair_columns, radial_columns;
  int rows, degree;

  Tables(const Spec& s, const double* theta) : rows(s.n_basis + 2), degree(padded_degree(s.l_max)) {
    std::vector<double> table(s.n_pairs * rows * 4, 0.0);
    for (int p = 0; p < s.n_pairs; ++p) {
      double* t = &table[p * rows * 4];
      const double* c = theta + p * s.n_basis;
      const double h = (s.r_cut - s.r_min[p]) / s.n_basis;
      spline_rows(s.n_basis, [&](int row, int d, int k, double w) { t[row * 4 + d] += w * c[k]; });
      t[3] -= s.core[p] * h * h * h / 6;
    }
    for (int a = 0; a < s.n_types; ++a)
      for (int b = 0; b < s.n_types; ++b) {
        const int p = s.pair(a, b);
        offset.push_back(p * rows);
        r_min.push_back(T(s.r_min[p]));
        inverse_width.push_back(T(s.n_basis / (s.r_cut - s.r_min[p])));
      }
    pair.assign(table.begin(), table.end());
    if (s.n_types == 1) make_columns(table, rows, pair_columns);
    if (!s.three_body) return;

    table.assign((s.n_basis3 + 2) * s.n_radial * 4, 0.0);
    for (int n = 0; n < s.n_radial; ++n) {
      const double* g = &s.radial[n * s.n_basis3];
      spline_rows(s.n_basis3, [&](int row, int d, int k, double w) {
        table[(n * (s.n_basis3 + 2) + row) * 4 + d] += w * g[k];
      });
    }
    radial.assign(table.begin(), table.end());
    make_columns(table, s.n_basis3 + 2, radial_columns);

    static const Legendre legendre;
    const int Q = s.channels(), D = degree + 1;
    const double* c = theta + s.n_pair_parameters();
    table.assign(s.n_types * Q * Q * D, 0.0);
    for (int a = 0; a < s.n_types; ++a)
      for (int q = 0; q < Q; ++q)
        for (int r = q; r < Q; ++r, c += s.l_max + 1)
          for (int l = 0; l <= s.l_max; ++l)
            for (int p = 0; p <= l; ++p) {
              table[((a * Q + q) * Q + r) * D + p] += c[l] * legendre.c[l][p];
              table[((a * Q + r) * Q + q) * D + p] += c[l] * legendre.c[l][p];
            }
    angular.assign(table.begin(), table.end());
  }
};

// Sums over pairs and triplets that are conjugate to the entries of Tables; `angular` over pairs of
// neighbours j < k only, so that it is not symmetric in q, q'.
struct Moments {
  std::vector<double> pair, angular;

  explicit Moments(const Spec& s)
      : pair(s.n_pairs * (s.n_basis + 2) * 4, 0.0),
        angular(s.three_body
                    ? s.n_types * s.channels() * s.channels() * (padded_degree(s.l_max) + 1)
                    : 0, 0.0) {}

  void add(const Moments& o) {
    for (std::size_t i = 0; i < pair.size(); ++i) pair[i] += o.pair[i];
    for (std::size_t i = 0; i < angular.size(); ++i) angular[i] += o.angular[i];
  }

  // gradient[P] += factor * sum_tables dTable/dtheta * moment
  void to_parameters(const Spec& s, double factor, double* gradient) const {
    const int rows = s.n_basis + 2;
    for (int p = 0; p < s.n_pairs; ++p)
      spline_rows(s.n_basis, [&](int row, int d, int k, double w) {
        gradient[p * s.n_basis + k] += factor * w * pair[(p * rows + row) * 4 + d];
      });
    if (!s.three_body) return;
    static const Legendre legendre;
    const int Q = s.channels(), D = padded_degree(s.l_max) + 1;
    double* g = gradient + s.n_pair_parameters();
    for (int a = 0; a < s.n_types; ++a)
      for (int q = 0; q < Q; ++q)
        for (int r = q; r < Q; ++r, g += s.l_max + 1)
          for (int l = 0; l <= s.l_max; ++l)
            for (int p = 0; p <= l; ++p)
              g[l] += factor * legendre.c[l][p] *
                      (angular[((a * Q + q) * Q + r) * D + p] +
                       angular[((a * Q + r) * Q + q) * D + p]);
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
