// Splines as tables that the kernels read.
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

}  // namespace CGADV_ISA
}  // namespace cgadv
