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
  Moments moments;        // what runs with THETA add to
  double energy = 0;      // of the last plain run
  int threads = 1;

  Evaluator(const Spec& spec, double skin)
      : list(spec.r_cut, spec.three_body ? spec.r_cut3 : 0, skin), moments(spec), spec_(spec) {}

  void set_positions(int64_t n, Positions pos, const int64_t* types, const Box& box) {
    list.update(n, pos, types, box, x_);
    box_ = box;
  }

  void set_direction(Positions direction) {
    const int n = list.size();
    for (int c = 0; c < 3; ++c) {
      e_[c].assign(n + ROW, 0);
      for (int p = 0; p < n; ++p) e_[c][p] = T(direction(list.order[p], c));
    }
  }

  // Plain: energy and gradient. Dual: Hessian times direction instead of the gradient.
  template <bool DUAL, bool THETA>
  void run(const Tables<T>& tables) {
    const int n = list.size();
    int parts = 1;
#ifdef _OPENMP
    // Below this a thread costs more than it brings.
    parts = std::max(1, std::min(threads, n / 64));
#endif
    if (int(parts_.size()) < parts) parts_.resize(parts, Part(spec_));
    for (int t = 0; t < parts; ++t) parts_[t].clear(n, THETA);
    if (parts == 1) {
      part<DUAL, THETA>(tables, parts_[0], 0, n);
    } else {
      // Halves of the list get shorter with the place when there is one cell only, so places are
      // dealt out in small portions; portion s always goes to part s % parts.
      const int portion = std::max(1, std::min(32, n / (4 * parts)));
#pragma omp parallel for num_threads(parts) schedule(static, 1)
      for (int t = 0; t < parts; ++t)
        for (int start = t * portion; start < n; start += parts * portion)
          part<DUAL, THETA>(tables, parts_[t], start, std::min(start + portion, n));
    }
    energy = 0;
    for (int t = 0; t < parts; ++t) {
      energy += parts_[t].energy;
      if (THETA) moments.add(parts_[t].moments);
    }
    for (int c = 0; c < 3; ++c)
      for (int t = 1; t < parts; ++t)
        for (int p = 0; p < n; ++p) parts_[0].g[c][p] += parts_[t].g[c][p];
  }

  // After run: component of the gradient (or of the Hessian times the direction).
  T gradient(int place, int axis) const { return parts_[0].g[axis][place]; }

 private:
  using V = Pack<T>;
  static constexpr int W = Simd<T>::W;

  struct Part {
    Array<T> g[3];
    Moments moments;
    double energy = 0;
    Array<T> row[3], weight, h;
    Array<int32_t> table_row, near;
    Array<V> packs, angular, powers;

    explicit Part(const Spec& s) : moments(s) {}
    void clear(int n, bool theta) {
      for (auto& c : g) c.assign(n + ROW, 0);
      energy = 0;
      if (theta) {
        std::fill(moments.pair.begin(), moments.pair.end(), 0.0);
        std::fill(moments.angular.begin(), moments.angular.end(), 0.0);
      }
    }
  };

  Spec spec_;
  Box box_;
  Array<T> x_[3], e_[3];
  std::vector<Part> parts_;

  template <bool DUAL, bool THETA>
  void part(const Tables<T>& tables, Part& part, int from, int to) {
    if (spec_.n_types == 1)
      pairs<DUAL, THETA, false>(tables, part, from, to);
    else
      pairs<DUAL, THETA, true>(tables, part, from, to);
    if (!spec_.three_body) return;
    switch (tables.degree) {
      case 2: return triplets<DUAL, THETA, 2>(tables, part, from, to);
      case 4: return triplets<DUAL, THETA, 4>(tables, part, from, to);
      case 6: return triplets<DUAL, THETA, 6>(tables, part, from, to);
      default: return triplets<DUAL, THETA, 8>(tables, part, from, to);
    }
  }

  template <bool DUAL, bool THETA, bool TYPES>
  void pairs(const Tables<T>& tables, Part& part, int from, int to) {
    using K = Scalar<T, DUAL>;
    using S = typename K::S;
    const PackBox<T> box(box_);
    const V zero{}, one = broadcast<T>(1), last = broadcast<T>(T(spec_.n_basis));
    const T* table = tables.pair.data();
    const Mask<T> lane = lanes<T>();
    V total{};
    double energy = 0;
    for (int p = from; p < to; ++p) {
      const int count = list.half_count[p];
      const int32_t* js = &list.half[list.half_start[p]];
      const int padded = (count + W - 1) / W * W;
      for (auto& r : part.row)
        if (int(r.size()) < padded) r.resize(padded + ROW);
      if (THETA && int(part.table_row.size()) < padded) {
        part.table_row.resize(padded + ROW);
        part.weight.resize(4 * (padded + ROW));
      }
      S xi[3], gi[3] = {};
      for (int c = 0; c < 3; ++c) xi[c] = K::of_bead(x_[c].data(), e_[c].data(), p);
      V r_min = broadcast(tables.r_min[0]), inverse_width = broadcast(tables.inverse_width[0]);
      for (int k = 0; k < padded; k += W) {
        const Index<T> j = load_index<T>(js + k);
        S d[3];
        for (int c = 0; c < 3; ++c) d[c] = K::gathered(x_[c].data(), e_[c].data(), j) - xi[c];
        box.nearest(d[0], d[1], d[2], K::value);
        S r, inverse;
        K::norm(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], r, inverse);
        Index<T> offset{};
        if (TYPES) {
          const int t = list.type[p] * spec_.n_types;
          for (int w = 0; w < W; ++w) {
            const int tt = t + list.type[j[w]];
            offset[w] = tables.offset[tt];
            r_min[w] = tables.r_min[tt];
            inverse_width[w] = tables.inverse_width[tt];
          }
        }
        S t = (r - r_min) * inverse_width;
        V start = floor(K::value(t));
        start = start < zero ? zero - one : start;
        start = start > last ? last : start;
        t = t - (start < zero ? zero : start);
        const Index<T> row = (__builtin_convertvector(start, Index<T>) + 1) * 4 + offset;
        const V c0 = gather(table, row), c1 = gather(table + 1, row), c2 = gather(table + 2, row),
                c3 = gather(table + 3, row);
        const S slope = ((t * (c3 * T(3)) + c2 * T(2)) * t + c1) * inverse_width * inverse;
        for (int c = 0; c < 3; ++c) {
          const S g = slope * d[c];
          gi[c] -= g;
          store<T>(&part.row[c][k], K::result(g));
        }
        const Mask<T> listed = lane < broadcast_mask(count - k);
        if (!DUAL) {
          const V u = ((c3 * K::value(t) + c2) * K::value(t) + c1) * K::value(t) + c0;
          total += listed ? u : zero;
        }
        if (THETA) {
          const S t2 = t * t, t3 = t2 * t;
          store<T>(&part.weight[4 * k], DUAL ? zero : one);
          store<T>(&part.weight[4 * k + W], K::result(t));
          store<T>(&part.weight[4 * k + 2 * W], K::result(t2));
          store<T>(&part.weight[4 * k + 3 * W], K::result(t3));
          __builtin_memcpy(&part.table_row[k], &row, sizeof row);
        }
      }
      for (int k = 0; k < count; ++k)
        for (int c = 0; c < 3; ++c) part.g[c][js[k]] += part.row[c][k];
      for (int c = 0; c < 3; ++c) part.g[c][p] += sum<T>(K::result(gi[c]));
      if (THETA) {
        double* m = part.moments.pair.data();
        for (int k = 0; k < count; ++k) {
          const T* w = &part.weight[4 * (k / W * W) + k % W];
          double* at = m + part.table_row[k];
          for (int s = 0; s < 4; ++s) at[s] += w[s * W];
        }
      }
      if (!DUAL) {
        energy += sum<T>(total);
        total = zero;
      }
    }
    part.energy += energy;
  }

  static CGADV_INLINE Mask<T> broadcast_mask(int v) {
    using E = decltype(lanes<T>()[0] + 0);
    return E(v) - Mask<T>{};
  }

  // LP is the degree of the angular polynomials.
  template <bool DUAL, bool THETA, int LP>
  void triplets(const Tables<T>& tables, Part& part, int from, int to) {
    using K = Scalar<T, DUAL>;
    using S = typename K::S;
    constexpr int D = LP + 1, PER = sizeof(S) / sizeof(V);
    const int NR = spec_.n_radial, Q = spec_.channels(), NT = spec_.n_types;
    const PackBox<T> box(box_);
    const V zero{}, last = broadcast<T>(T(spec_.n_basis3));
    const V r_min = broadcast<T>(T(spec_.r_min3)),
            inverse_width = broadcast<T>(T(spec_.n_basis3 / (spec_.r_cut3 - spec_.r_min3)));
    const T cut2 = T(spec_.r_cut3 * spec_.r_cut3);
    const Mask<T> lane = lanes<T>();
    if (THETA) part.angular.assign(std::size_t(NT) * Q * Q * D, zero);
    double energy = 0;

    for (int p = from; p < to; ++p) {
      // The neighbours inside the cutoff, packed together.
      const int listed = list.near_start[p + 1] - list.near_start[p];
      const int32_t* js = &list.near[list.near_start[p]];
      if (int(part.near.size()) < listed + ROW) {
        part.near.resize(listed + 2 * ROW);
        for (auto& r : part.row) r.resize(std::max(r.size(), std::size_t(listed + 2 * ROW)));
      }
      S xi[3];
      for (int c = 0; c < 3; ++c) xi[c] = K::of_bead(x_[c].data(), e_[c].data(), p);
      int n = 0;
      for (int k = 0; k < listed; k += W) {
        const Index<T> j = load_index<T>(js + k);
        V d[3];
        for (int c = 0; c < 3; ++c) d[c] = gather(x_[c].data(), j) - K::value(xi[c]);
        box.nearest(d[0], d[1], d[2], [](V v) { return v; });
        const V r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
        const int m = std::min(W, listed - k);
        for (int w = 0; w < m; ++w) {
          part.near[n] = js[k + w];
          n += r2[w] < cut2;
        }
      }
      if (n < 2) continue;
      const int blocks = (n + W - 1) / W;
      for (int k = n; k < blocks * W; ++k) part.near[k] = part.near[0];

      // u: unit vectors, g and g': radial functions and slopes by channel, zero where the
      // neighbour has another type.
      const std::size_t width = std::size_t(blocks) * PER;
      if (part.packs.size() < width * (4 + 2 * Q + Q * D))
        part.packs.resize(width * (4 + 2 * Q + Q * D));
      S* const memory = reinterpret_cast<S*>(part.packs.data());
      S* const u = memory;
      S* const inverse = memory + 3 * blocks;
      S* const g = memory + 4 * blocks;
      S* const slope = g + Q * blocks;
      S* const h = slope + Q * blocks;
      for (int b = 0; b < blocks; ++b) {
        const Index<T> j = load_index<T>(&part.near[b * W]);
        S d[3], r;
        for (int c = 0; c < 3; ++c) d[c] = K::gathered(x_[c].data(), e_[c].data(), j) - xi[c];
        box.nearest(d[0], d[1], d[2], K::value);
        K::norm(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], r, inverse[b]);
        for (int c = 0; c < 3; ++c) u[c * blocks + b] = d[c] * inverse[b];
        S t = (r - r_min) * inverse_width;
        V start = floor(K::value(t));
        start = start < zero ? zero - T(1) : start;
        start = start > last ? last : start;
        t = t - (start < zero ? zero : start);
        const Index<T> row = (__builtin_convertvector(start, Index<T>) + 1) * (4 * NR);
        const Mask<T> inside = lane < broadcast_mask(n - b * W);
        for (int m = 0; m < NR; ++m) {
          const T* table = tables.radial.data() + 4 * m;
          const V c0 = gather(table, row), c1 = gather(table + 1, row),
                  c2 = gather(table + 2, row), c3 = gather(table + 3, row);
          const S value = K::select(inside, ((t * c3 + c2) * t + c1) * t + c0);
          const S rate =
              K::select(inside, ((t * (c3 * T(3)) + c2 * T(2)) * t + c1) * inverse_width);
          if (NT == 1) {
            g[m * blocks + b] = value;
            slope[m * blocks + b] = rate;
          } else {
            Mask<T> types;
            for (int w = 0; w < W; ++w) types[w] = list.type[j[w]];
            for (int a = 0; a < NT; ++a) {
              const Mask<T> same = types == broadcast_mask(a);
              g[(a * NR + m) * blocks + b] = K::select(same, value);
              slope[(a * NR + m) * blocks + b] = K::select(same, rate);
            }
          }
        }
      }

      // h[q][p] of neighbour k: sum_q' angular[q][q'][p] g_q'(r_ik).
      const T* const angular = &tables.angular[std::size_t(list.type[p]) * Q * Q * D];
      for (int q = 0; q < Q; ++q)
        for (int b = 0; b < blocks; ++b) {
          S a[D] = {};
          for (int r = 0; r < Q; ++r) {
            const S gr = g[r * blocks + b];
            const T* c = angular + (q * Q + r) * D;
            for (int l = 0; l < D; ++l) a[l] += gr * broadcast<T>(c[l]);
          }
          for (int l = 0; l < D; ++l) h[(q * D + l) * blocks + b] = a[l];
        }

      V total{};
      V sum_i[3] = {};
      for (int b = 0; b < blocks; ++b) {
        // The channels that this block's neighbours have: neighbours are sorted by type.
        const int first = NT == 1 ? 0 : list.type[part.near[b * W]] * NR;
        const int final =
            NT == 1 ? NR : (list.type[part.near[std::min(b * W + W, n) - 1]] + 1) * NR;
        S along{}, across[3] = {};
        const S ux = u[b], uy = u[blocks + b], uz = u[2 * blocks + b];
        if (THETA) part.powers.assign(std::size_t(Q) * D * PER, zero);
        S* const powers = reinterpret_cast<S*>(part.powers.data());
        for (int k = 0; k < n; ++k) {
          const S vx = K::lane(u, k), vy = K::lane(u + blocks, k), vz = K::lane(u + 2 * blocks, k);
          const S x = ux * vx + uy * vy + uz * vz;
          const Mask<T> other = lane != broadcast_mask(k - b * W);
          S dr{}, dx{};
          V e{};
          for (int q = first; q < final; ++q) {
            const S* hq = h + q * D * blocks;
            S value = K::lane(hq + LP * blocks, k);
            S rate = value;
            value = value * x + K::lane(hq + (LP - 1) * blocks, k);
            for (int l = LP - 2; l >= 0; --l) {
              rate = rate * x + value;
              value = value * x + K::lane(hq + l * blocks, k);
            }
            dr += slope[q * blocks + b] * value;
            dx += g[q * blocks + b] * rate;
            if (!DUAL) e += K::value(g[q * blocks + b]) * K::value(value);
          }
          along += K::select(other, dr);
          dx = K::select(other, dx);
          across[0] += dx * vx;
          across[1] += dx * vy;
          across[2] += dx * vz;
          if (!DUAL) total += other ? e : zero;
          if (THETA) {
            const int a = NT == 1 ? 0 : list.type[part.near[k]];
            S power[D];
            power[0] = K::select(other, K::constant(broadcast<T>(1)));
            for (int l = 1; l < D; ++l) power[l] = power[l - 1] * x;
            for (int m = 0; m < NR; ++m) {
              const int q = a * NR + m;
              const S gk = K::lane(g + q * blocks, k);
              for (int l = 0; l < D; ++l) powers[q * D + l] += power[l] * gk;
            }
          }
        }
        const S radial = across[0] * ux + across[1] * uy + across[2] * uz;
        const S comps[3] = {ux, uy, uz};
        for (int c = 0; c < 3; ++c) {
          const S gc = along * comps[c] + (across[c] - radial * comps[c]) * inverse[b];
          sum_i[c] -= K::result(gc);
          store<T>(&part.row[c][b * W], K::result(gc));
        }
        if (THETA) {
          V* m = &part.angular[std::size_t(list.type[p]) * Q * Q * D];
          for (int q = first; q < final; ++q) {
            const S gq = g[q * blocks + b];
            for (int s = 0; s < Q * D; ++s) m[q * Q * D + s] += K::result(gq * powers[s]);
          }
        }
      }
      for (int k = 0; k < n; ++k)
        for (int c = 0; c < 3; ++c) part.g[c][part.near[k]] += part.row[c][k];
      for (int c = 0; c < 3; ++c) part.g[c][p] += sum<T>(sum_i[c]);
      if (!DUAL) energy += 0.5 * sum<T>(total);
    }
    if (!DUAL) part.energy += energy;
    if (THETA)
      for (std::size_t k = 0; k < part.angular.size(); ++k)
        part.moments.angular[k] += sum<T>(part.angular[k]);
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
