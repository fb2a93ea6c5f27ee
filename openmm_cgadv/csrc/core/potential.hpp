// Energy of a configuration, its gradient, and the derivatives of both along a direction.
//
// One code computes with packs (energy, gradient, moments) and with dual packs (the Hessian times
// a direction and the moments' derivative along it). Moments are what parameter gradients are
// made of, see spline.hpp.
//
// Pair: u(r) of every pair inside r_cut. Three-body, for every bead i with neighbours j, k inside
// r_cut3 and x = cos(theta_jik):
//   1/2 sum_{j != k} sum_{q q' p} angular[q][q'][p] g_q(r_ij) g_q'(r_ik) x^p,
// which is the density correlation sum_m A_iqlm A_iq'lm minus its self term, written out. For the
// handful of neighbours that a short cutoff leaves this costs less than spherical harmonics.
#pragma once

#include <cstring>

#include "neighbors.hpp"
#include "scalar.hpp"
#include "spline.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace cgadv {
inline namespace CGADV_ISA {

template <class T>
class Evaluator {
 public:
  Neighbors list;
  Moments moments;    // what runs with THETA add to
  double energy = 0;  // of the last plain run
  int threads = 1;

  Evaluator(const Spec& spec, double skin)
      : list(spec.r_cut, spec.three_body ? spec.r_cut3 : 0, skin), moments(spec), spec_(spec) {}

  void set_positions(int64_t n, Positions pos, const int64_t* types, const Box& box) {
    list.update(n, pos, types, box, x_);
    box_ = box;
  }

  void set_direction(Positions direction) {
    const int n = list.size();
    e_.resize(4 * n);
    for (int p = 0; p < n; ++p) {
      for (int c = 0; c < 3; ++c) e_[4 * p + c] = T(direction(list.order[p], c));
      e_[4 * p + 3] = 0;
    }
  }

  // Plain: energy and gradient. Dual: Hessian times direction instead of the gradient.
  template <bool DUAL, bool THETA>
  void run(const Tables<T>& tables) {
    const int n = list.size();
    int n_parts = 1;
#ifdef _OPENMP
    // Below this a thread costs more than it brings.
    n_parts = std::max(1, std::min(threads, n / 64));
#endif
    if (int(parts_.size()) < n_parts) parts_.resize(n_parts);
    if (n_parts == 1) {
      parts_[0].clear(n, THETA, moments);
      part<DUAL, THETA>(tables, parts_[0], 0, n);
    } else {
      // Rows of the half list get shorter with the place when there is one cell only, so places
      // are dealt out in small portions; portion s always goes to part s % n_parts.
      const int portion = std::max(1, std::min(32, n / (4 * n_parts)));
#pragma omp parallel for num_threads(n_parts) schedule(static, 1)
      for (int t = 0; t < n_parts; ++t) {
        parts_[t].clear(n, THETA, moments);
        for (int start = t * portion; start < n; start += n_parts * portion)
          part<DUAL, THETA>(tables, parts_[t], start, std::min(start + portion, n));
      }
    }
    energy = 0;
    for (int t = 0; t < n_parts; ++t) {
      energy += parts_[t].energy;
      if (!THETA) continue;
      for (std::size_t k = 0; k < moments.pair.size(); ++k)
        moments.pair[k] += double(parts_[t].pair[k]);
      for (std::size_t k = 0; k < moments.angular.size(); ++k)
        moments.angular[k] += double(sum<T>(parts_[t].angular[k]));
    }
    for (int t = 1; t < n_parts; ++t) {
      const T* from = parts_[t].gradient.data();
      T* to = parts_[0].gradient.data();
      for (int k = 0; k < 4 * n; ++k) to[k] += from[k];
    }
  }

  // After run: component of the gradient (or of the Hessian times the direction).
  T gradient(int place, int axis) const { return parts_[0].gradient[4 * place + axis]; }

 private:
  using V = Pack<T>;
  static constexpr int W = Simd<T>::W;

  // What one thread adds up, and its scratch memory.
  struct Part {
    Array<T> gradient;        // [4 place + axis]
    double energy = 0;
    Array<T> pair;            // conjugate to Tables::pair
    Array<V> angular;         // conjugate to Tables::angular
    Array<int32_t> near;
    Array<V> packs;

    void clear(int n, bool theta, const Moments& moments) {
      gradient.assign(4 * n, 0);
      energy = 0;
      if (!theta) return;
      pair.assign(moments.pair.size(), 0);
      angular.assign(moments.angular.size(), V{});
    }
  };

  Spec spec_;
  Box box_;
  Array<T> x_, e_;  // records (x, y, z, 0) of positions and of the direction
  std::vector<Part> parts_;

  template <bool DUAL, bool THETA>
  void part(const Tables<T>& tables, Part& part, int from, int to) {
    if (spec_.n_types == 1)
      pairs<DUAL, THETA, false>(tables, part, from, to);
    else
      pairs<DUAL, THETA, true>(tables, part, from, to);
    if (!spec_.three_body) return;
    const int channels = spec_.n_types == 1 ? spec_.n_radial : 0;
    switch (tables.degree) {
      case 2: return triplets<DUAL, THETA, 2, 0>(tables, part, from, to);
      case 4:
        switch (channels) {
          case 1: return triplets<DUAL, THETA, 4, 1>(tables, part, from, to);
          case 2: return triplets<DUAL, THETA, 4, 2>(tables, part, from, to);
          case 3: return triplets<DUAL, THETA, 4, 3>(tables, part, from, to);
          default: return triplets<DUAL, THETA, 4, 0>(tables, part, from, to);
        }
      case 6: return triplets<DUAL, THETA, 6, 0>(tables, part, from, to);
      default: return triplets<DUAL, THETA, 8, 0>(tables, part, from, to);
    }
  }

  // Which cubic (row of a table) r falls into; t becomes the variable of that cubic.
  template <class S, class Value>
  static CGADV_INLINE Index<T> locate(S& t, V last, Value value) {
    V start = floor(value(t));
    start = start < V{} ? V{} - T(1) : start;
    start = start > last ? last : start;
    t = t - (start < V{} ? V{} : start);
    return __builtin_convertvector(start, Index<T>) + 1;
  }

  static CGADV_INLINE void coefficients(const T* records, const T* columns, Index<T> row, V* c) {
    if (SMALL_TABLES && columns != nullptr) {
      look_up(columns, row, c);
    } else {
      int32_t rows[W];
      __builtin_memcpy(rows, &row, sizeof row);
      fetch4(records, rows, c);
    }
  }

  static CGADV_INLINE Mask<T> broadcast_mask(int v) {
    using E = decltype(lanes<T>()[0] + 0);
    return E(v) - Mask<T>{};
  }

  template <bool DUAL, bool THETA, bool TYPES>
  void pairs(const Tables<T>& tables, Part& part, int from, int to) {
    using K = Scalar<T, DUAL>;
    using S = typename K::S;
    const PackBox<T> box(box_);
    const V zero{}, one = broadcast<T>(1), last = broadcast<T>(T(spec_.n_basis));
    const T *records = tables.pair.data(),
            *columns = tables.pair_columns.empty() ? nullptr : tables.pair_columns.data();
    const T *const x = x_.data(), *const e = e_.data();
    T* const gradient = part.gradient.data();
    const Mask<T> lane = lanes<T>();
    Total<T> energy;
    for (int p = from; p < to; ++p) {
      const int count = list.half_count[p];
      const int32_t* js = &list.half[list.half_start[p]];
      S xi[3], gi[3] = {};
      for (int c = 0; c < 3; ++c) xi[c] = K::fetch_one(x, e, p, c);
      V r_min = broadcast(tables.r_min[0]), inverse_width = broadcast(tables.inverse_width[0]);
      V total{};
      for (int k = 0; k < count; k += W) {
        S d[4];
        K::fetch(x, e, js + k, d);
        for (int c = 0; c < 3; ++c) d[c] -= xi[c];
        box.nearest(d[0], d[1], d[2], K::value);
        S r, inverse;
        K::norm(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], r, inverse);
        Index<T> offset{};
        if (TYPES) {
          const int t = list.type[p] * spec_.n_types;
          for (int w = 0; w < W; ++w) {
            const int tt = t + list.type[js[k + w]];
            offset[w] = tables.offset[tt];
            r_min[w] = tables.r_min[tt];
            inverse_width[w] = tables.inverse_width[tt];
          }
        }
        S t = (r - r_min) * inverse_width;
        const Index<T> row = locate(t, last, K::value) + offset;
        V c[4];
        coefficients(records, TYPES ? nullptr : columns, row, c);
        const S slope = ((t * (c[3] * T(3)) + c[2] * T(2)) * t + c[1]) * inverse_width * inverse;
        V out[4] = {};
        for (int a = 0; a < 3; ++a) {
          const S g = slope * d[a];
          gi[a] -= g;
          out[a] = K::result(g);
        }
        add4(gradient, js + k, out);
        const Mask<T> listed = lane < broadcast_mask(count - k);
        if (!DUAL) {
          const V tv = K::value(t);
          const V u = ((c[3] * tv + c[2]) * tv + c[1]) * tv + c[0];
          total += listed ? u : zero;
        }
        if (THETA) {
          const S t2 = t * t, t3 = t2 * t;
          const V weights[4] = {DUAL ? zero : (listed ? one : zero),
                                listed ? K::result(t) : zero, listed ? K::result(t2) : zero,
                                listed ? K::result(t3) : zero};
          int32_t rows[W];
          __builtin_memcpy(rows, &row, sizeof row);
          add4(part.pair.data(), rows, weights);
        }
      }
      const V own[4] = {K::result(gi[0]), K::result(gi[1]), K::result(gi[2]), zero};
      add4_sum(gradient + 4 * p, own);
      if (!DUAL) energy.add(total);
    }
    part.energy += energy.value();
  }

  // LP is the degree of the angular polynomials, QN the number of channels; 0: known at run time.
  template <bool DUAL, bool THETA, int LP, int QN>
  void triplets(const Tables<T>& tables, Part& part, int from, int to) {
    using K = Scalar<T, DUAL>;
    using S = typename K::S;
    constexpr int D = LP + 1, PER = sizeof(S) / sizeof(V);
    const int NR = QN ? QN : spec_.n_radial, Q = QN ? QN : spec_.channels();
    const int NT = QN ? 1 : spec_.n_types;
    const PackBox<T> box(box_);
    const V zero{}, last = broadcast<T>(T(spec_.n_basis3));
    const V r_min = broadcast<T>(T(spec_.r_min3)),
            inverse_width = broadcast<T>(T(spec_.n_basis3 / (spec_.r_cut3 - spec_.r_min3)));
    const V cut2 = broadcast<T>(T(spec_.r_cut3 * spec_.r_cut3));
    const T *const positions = x_.data(), *const direction = e_.data();
    T* const gradient = part.gradient.data();
    const int rows3 = spec_.n_basis3 + 2;
    const T* columns = tables.radial_columns.empty() ? nullptr : tables.radial_columns.data();
    const Mask<T> lane = lanes<T>();
    Total<T> energy;

    for (int p = from; p < to; ++p) {
      // The neighbours inside the cutoff, packed together.
      const int listed = list.near_start[p + 1] - list.near_start[p];
      const int32_t* js = &list.near[list.near_start[p]];
      if (int(part.near.size()) < listed + 2 * ROW) part.near.resize(listed + 4 * ROW);
      int32_t* const near = part.near.data();
      S xi[3];
      for (int c = 0; c < 3; ++c) xi[c] = K::fetch_one(positions, direction, p, c);
      int n = 0;
      for (int k = 0; k < listed; k += W) {
        V d[4];
        fetch4(positions, js + k, d);
        for (int c = 0; c < 3; ++c) d[c] -= K::value(xi[c]);
        box.nearest(d[0], d[1], d[2], [](V v) { return v; });
        const V r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
        n += append(near + n, load_index<T>(js + k),
                    (r2 < cut2) & (lane < broadcast_mask(listed - k)));
      }
      if (n < 2) continue;
      const int blocks = (n + W - 1) / W;
      for (int k = n; k < blocks * W; ++k) near[k] = near[0];

      // By channel: g and its slope, zero where the neighbour has another type.
      const std::size_t entries = std::size_t(blocks) * (4 + 2 * Q + Q * D) + Q * D;
      if (part.packs.size() < entries * PER) part.packs.resize(2 * entries * PER);
      S* const u = reinterpret_cast<S*>(part.packs.data());
      S* const inverse = u + 3 * blocks;
      S* const g = inverse + blocks;
      S* const slope = g + Q * blocks;
      S* const h = slope + Q * blocks;
      S* const spare = h + Q * D * blocks;
      for (int b = 0; b < blocks; ++b) {
        S d[4], r;
        K::fetch(positions, direction, near + b * W, d);
        for (int c = 0; c < 3; ++c) d[c] -= xi[c];
        box.nearest(d[0], d[1], d[2], K::value);
        K::norm(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], r, inverse[b]);
        for (int c = 0; c < 3; ++c) u[c * blocks + b] = d[c] * inverse[b];
        S t = (r - r_min) * inverse_width;
        const Index<T> row = locate(t, last, K::value);
        const Mask<T> inside = lane < broadcast_mask(n - b * W);
        for (int m = 0; m < NR; ++m) {
          V c[4];
          coefficients(tables.radial.data() + 4 * m * rows3, columns ? columns + 128 * m : nullptr,
                       row, c);
          const S value = K::select(inside, ((t * c[3] + c[2]) * t + c[1]) * t + c[0]);
          const S rate = K::select(
              inside, ((t * (c[3] * T(3)) + c[2] * T(2)) * t + c[1]) * inverse_width);
          if (NT == 1) {
            g[m * blocks + b] = value;
            slope[m * blocks + b] = rate;
          } else {
            Mask<T> types;
            for (int w = 0; w < W; ++w) types[w] = list.type[near[b * W + w]];
            for (int a = 0; a < NT; ++a) {
              const Mask<T> same = types == broadcast_mask(a);
              g[(a * NR + m) * blocks + b] = K::select(same, value);
              slope[(a * NR + m) * blocks + b] = K::select(same, rate);
            }
          }
        }
      }

      // h[q][l] of neighbour k: sum_q' angular[q][q'][l] g_q'(r_ik); with THETA l times that.
      const T* const angular = &tables.angular[std::size_t(list.type[p]) * Q * Q * D];
      for (int q = 0; q < Q; ++q)
        for (int b = 0; b < blocks; ++b) {
          S a[D] = {};
          for (int r = 0; r < Q; ++r) {
            const S gr = g[r * blocks + b];
            const T* c = angular + (q * Q + r) * D;
            for (int l = 0; l < D; ++l) a[l] += gr * broadcast<T>(c[l]);
          }
          for (int l = 0; l < D; ++l)
            h[(q * D + l) * blocks + b] = THETA ? a[l] * broadcast<T>(T(l)) : a[l];
        }

      V sum_i[4] = {};
      for (int b = 0; b < blocks; ++b) {
        // The channels that this block's neighbours have: neighbours are sorted by type.
        const int first = NT == 1 ? 0 : list.type[near[b * W]] * NR;
        const int end = NT == 1 ? NR : (list.type[near[std::min(b * W + W, n) - 1]] + 1) * NR;
        S fixed[QN ? (THETA ? QN * D : QN) : 1], g_fixed[QN ? QN : 1];
        S* const sums = QN ? fixed : spare;
        for (int s = 0; s < (THETA ? Q * D : Q); ++s) sums[s] = S{};
        if (QN)
          for (int q = 0; q < QN; ++q) g_fixed[q] = g[q * blocks + b];
        S across[3] = {};
        const S ux = u[b], uy = u[blocks + b], uz = u[2 * blocks + b];
        // Over all k, k = j too, which is taken off again below. Plain: sums[q] over k of the
        // polynomial sum_l h[q][l] x^l. With THETA: sums[q'][l] of g_q' x^l, from which the
        // former follow.
        for (int k = 0; k < n; ++k) {
          const S vx = K::lane(u, k), vy = K::lane(u + blocks, k), vz = K::lane(u + 2 * blocks, k);
          const S x = ux * vx + uy * vy + uz * vz;
          S dx{};
          for (int q = first; q < end; ++q) {
            const S* hq = h + q * D * blocks;
            S rate = K::lane(hq + LP * blocks, k);
            if (THETA) {
              for (int l = LP - 1; l > 0; --l) rate = rate * x + K::lane(hq + l * blocks, k);
            } else {
              S value = rate * x + K::lane(hq + (LP - 1) * blocks, k);
              for (int l = LP - 2; l >= 0; --l) {
                rate = rate * x + value;
                value = value * x + K::lane(hq + l * blocks, k);
              }
              sums[q] += value;
            }
            dx += (QN ? g_fixed[QN ? q : 0] : g[q * blocks + b]) * rate;
          }
          across[0] += dx * vx;
          across[1] += dx * vy;
          across[2] += dx * vz;
          if (THETA) {
            const int a = NT == 1 ? 0 : list.type[near[k]];
            for (int m = 0; m < NR; ++m) {
              S term = K::lane(g + (a * NR + m) * blocks, k);
              for (int l = 0; l < LP; ++l) {
                sums[(a * NR + m) * D + l] += term;
                term = term * x;
              }
              sums[(a * NR + m) * D + LP] += term;
            }
          }
        }
        // k = j: in `across` it points along u, and that part is projected out.
        const S x = ux * ux + uy * uy + uz * uz;
        if (THETA)
          for (int q = 0; q < Q; ++q) {
            S term = g[q * blocks + b];
            for (int l = 0; l < D; ++l) {
              sums[q * D + l] -= term;
              term = term * x;
            }
          }
        S along{};
        V total{};
        for (int q = first; q < end; ++q) {
          S value{};
          if (THETA) {
            for (int s = 0; s < Q * D; ++s)
              value += sums[s] * broadcast<T>(angular[q * Q * D + s]);
          } else {
            S own = h[(q * D + LP) * blocks + b];
            for (int l = LP - 1; l >= 0; --l) own = own * x + h[(q * D + l) * blocks + b];
            value = sums[q] - own;
          }
          along += slope[q * blocks + b] * value;
          if (!DUAL) total += K::value(g[q * blocks + b]) * K::value(value);
        }
        if (!DUAL) energy.add(total);
        const S radial = across[0] * ux + across[1] * uy + across[2] * uz;
        const S unit[3] = {ux, uy, uz};
        V out[4] = {};
        for (int c = 0; c < 3; ++c) {
          const S gc = along * unit[c] + (across[c] - radial * unit[c]) * inverse[b];
          out[c] = K::result(gc);
          sum_i[c] -= out[c];
        }
        add4(gradient, near + b * W, out);
        if (THETA) {
          V* m = &part.angular[std::size_t(list.type[p]) * Q * Q * D];
          for (int q = first; q < end; ++q) {
            const S gq = g[q * blocks + b];
            for (int s = 0; s < Q * D; ++s) m[q * Q * D + s] += K::product_result(gq, sums[s]);
          }
        }
      }
      add4_sum(gradient + 4 * p, sum_i);
    }
    part.energy += 0.5 * energy.value();
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
