// Ornstein-Uhlenbeck matrices of one time step, from the matrices of friction and memory.
//
//   E = exp(-A dt),   S lower triangular with S S^T = 1 - E E^T,
// so that s <- E s + sqrt(kT/m) S xi keeps the covariance kT/m. Matrices are [size,size] in rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace cgadv {

using Matrix = std::vector<double>;

inline Matrix product(const Matrix& a, const Matrix& b, int64_t size) {
  Matrix c(size * size, 0.0);
  for (int64_t i = 0; i < size; ++i)
    for (int64_t k = 0; k < size; ++k)
      for (int64_t j = 0; j < size; ++j) c[i * size + j] += a[i * size + k] * b[k * size + j];
  return c;
}

// By Taylor's series of a matrix scaled until its norm is below one half, then squared.
inline Matrix exponential(Matrix a, int64_t size) {
  double norm = 0;
  for (int64_t i = 0; i < size; ++i) {
    double row = 0;
    for (int64_t j = 0; j < size; ++j) row += std::abs(a[i * size + j]);
    norm = std::max(norm, row);
  }
  if (!(norm < 1e6)) throw std::runtime_error("drift times time step is not a reasonable number");
  int squarings = 0;
  for (; norm > 0.5; norm *= 0.5) ++squarings;
  for (double& x : a) x = std::ldexp(x, -squarings);
  Matrix sum(size * size, 0.0), term(size * size, 0.0);
  for (int64_t i = 0; i < size; ++i) sum[i * size + i] = term[i * size + i] = 1;
  for (int k = 1; k <= 18; ++k) {  // 0.5^19 / 19! is below any rounding
    term = product(term, a, size);
    for (double& x : term) x /= k;
    for (int64_t i = 0; i < size * size; ++i) sum[i] += term[i];
  }
  for (; squarings > 0; --squarings) sum = product(sum, sum, size);
  return sum;
}

// E and S for every type: drift [n_types,size,size] (1/ps), dt (ps).
inline void propagator(const double* drift, int64_t n_types, int64_t size, double dt, Matrix& E,
                       Matrix& S) {
  E.clear();
  S.assign(n_types * size * size, 0.0);
  for (int64_t t = 0; t < n_types; ++t) {
    Matrix a(drift + t * size * size, drift + (t + 1) * size * size);
    for (double& x : a) x *= -dt;
    const Matrix e = exponential(std::move(a), size);
    E.insert(E.end(), e.begin(), e.end());
    double* const s = &S[t * size * size];
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j <= i; ++j) {
        double x = i == j ? 1 : 0;
        for (int64_t k = 0; k < size; ++k) x -= e[i * size + k] * e[j * size + k];
        for (int64_t k = 0; k < j; ++k) x -= s[i * size + k] * s[j * size + k];
        if (i != j) {
          // A component without friction gets no noise of its own.
          s[i * size + j] = s[j * size + j] > 0 ? x / s[j * size + j] : 0;
        } else {
          if (!(x > -1e-12))
            throw std::runtime_error(
                "drift: found a matrix whose symmetric part is not positive, expected friction in "
                "every direction");
          s[i * size + i] = std::sqrt(std::max(x, 0.0));
        }
      }
  }
}

}  // namespace cgadv
