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
      : list(spec.r_cut, spec.three_body ? spec.r_cut3 : 0, skin, W), moments(spec), spec_(spec) {}

  void set_positions(int64_t n, Positions pos, const int64_t* types, const Box& box) {
    list.update(n, pos, types, box, x_, threads);
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
    n_parts = std::max(1, std::min(threads, n / 256));
#endif
    if (int(parts_.size()) < n_parts) parts_.resize(n_parts);
    if (n_parts == 1) {
      parts_[0].clear(n, THETA, moments);
      part<DUAL, THETA>(tables, parts_[0], 0, n);
    } else {
      // Rows of the half list get shorter with the place when there is one cell only, so places
      // are dealt out in small portions; portion s always goes to part s % n_parts.
      const int portion = std::max(32, std::min(512, n / (8 * n_parts)));
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
    if (n_parts == 1) return;
    T* const to = parts_[0].gradient.data();
#pragma omp parallel for num_threads(n_parts) schedule(static, 1)
    for (int share = 0; share < n_parts; ++share)
      for (int t = 1; t < n_parts; ++t) {
        const T* const from = parts_[t].gradient.data();
        for (int64_t k = 4L * n * share / n_parts; k < 4L * n * (share + 1) / n_parts; ++k)
          to[k] += from[k];
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
    Array<V> packs, cosines;

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

  // In three sweeps over some dozens of packs at a time: one pack's chain of dependent
  // instructions is long, and only short sweeps let the processor work on several packs at once.
  template <bool DUAL, bool THETA, bool TYPES>
  void pairs(const Tables<T>& tables, Part& part, int from, int to) {
    using K = Scalar<T, DUAL>;
    using S = typename K::S;
    struct Entry {
      S d[3], r2;
      int32_t listed, type;
    };
    constexpr int ENOUGH = 32;
    const PackBox<T> box(box_);
    const V zero{}, one = broadcast<T>(1), last = broadcast<T>(T(spec_.n_basis));
    const T *records = tables.pair.data(),
            *columns = tables.pair_columns.empty() ? nullptr : tables.pair_columns.data();
    const T *const x = x_.data(), *const e = e_.data();
    T* const gradient = part.gradient.data();
    const Mask<T> lane = lanes<T>();
    Total<T> energy;
    for (int start = from, end; start < to; start = end) {
      int packs = 0;
      for (end = start; end < to && packs < ENOUGH; ++end)
        packs += (list.half_count[end] + W - 1) / W;
      constexpr std::size_t SIZE = (sizeof(Entry) + sizeof(V) - 1) / sizeof(V);
      if (part.packs.size() < SIZE * packs) part.packs.resize(2 * SIZE * packs);
      Entry* const entries = reinterpret_cast<Entry*>(part.packs.data());
      const int32_t* const js = &list.half[list.half_start[start]];

      Entry* entry = entries;
      const int32_t* j = js;
      for (int p = start; p < end; ++p) {
        S xi[3];
        for (int c = 0; c < 3; ++c) xi[c] = K::fetch_one(x, e, p, c);
        for (int listed = list.half_count[p]; listed > 0; listed -= W, j += W, ++entry) {
          S d[4];
          K::fetch(x, e, j, d);
          for (int c = 0; c < 3; ++c) d[c] -= xi[c];
          box.nearest(d[0], d[1], d[2], K::value);
          for (int c = 0; c < 3; ++c) entry->d[c] = d[c];
          entry->r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
          entry->listed = listed;
          if (TYPES) entry->type = list.type[p];
        }
      }

      V total{};
      for (int k = 0; k < packs; ++k) {
        Entry& at = entries[k];
        S r, inverse;
        K::norm(at.r2, r, inverse);
        Index<T> offset{};
        V r_min = broadcast(tables.r_min[0]), inverse_width = broadcast(tables.inverse_width[0]);
        if (TYPES)
          for (int w = 0; w < W; ++w) {
            const int tt = at.type * spec_.n_types + list.type[js[k * W + w]];
            offset[w] = tables.offset[tt];
            r_min[w] = tables.r_min[tt];
            inverse_width[w] = tables.inverse_width[tt];
          }
        S t = (r - r_min) * inverse_width;
        const Index<T> row = locate(t, last, K::value) + offset;
        V c[4];
        coefficients(records, TYPES ? nullptr : columns, row, c);
        const S slope = ((t * (c[3] * T(3)) + c[2] * T(2)) * t + c[1]) * inverse_width * inverse;
        for (int a = 0; a < 3; ++a) at.d[a] = slope * at.d[a];
        const Mask<T> listed = lane < broadcast_mask(at.listed);
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
      if (!DUAL) energy.add(total);

      entry = entries, j = js;
      for (int p = start; p < end; ++p) {
        V own[4] = {};
        for (int listed = list.half_count[p]; listed > 0; listed -= W, j += W, ++entry) {
          V out[4] = {};
          for (int a = 0; a < 3; ++a) {
            out[a] = K::result(entry->d[a]);
            own[a] -= out[a];
          }
          add4(gradient, j, out);
        }
        add4_sum(gradient + 4 * p, own);
      }
    }
    part.energy += energy.value();
  }

  // LP is the degree of the angular polynomials, QN the number of channels; 0: known at run time.
  // In sweeps over a few beads at a time, for the reason given above.
  template <bool DUAL, bool THETA, int LP, int QN>
  void triplets(const Tables<T>& tables, Part& part, int from, int to) {
    using K = Scalar<T, DUAL>;
    using S = typename K::S;
    constexpr int D = LP + 1, PER = sizeof(S) / sizeof(V), BATCH = 8;
    const int NR = QN ? QN : spec_.n_radial, Q = QN ? QN : spec_.channels();
    const int NT = QN ? 1 : spec_.n_types;
    // A block is a pack of neighbours; fields of its record. By channel: g and its slope, zero
    // where the neighbour has another type; h, the polynomials; sums over the other neighbours.
    const int SUMS = THETA ? Q * D : Q;
    const int UNIT = 0, INVERSE = 3, G = 4, SLOPE = G + Q, H = SLOPE + Q, ACROSS = H + Q * D,
              SUM = ACROSS + 3, RECORD = SUM + SUMS;
    const PackBox<T> box(box_);
    const V last = broadcast<T>(T(spec_.n_basis3));
    const V r_min = broadcast<T>(T(spec_.r_min3)),
            inverse_width = broadcast<T>(T(spec_.n_basis3 / (spec_.r_cut3 - spec_.r_min3)));
    const V cut2 = broadcast<T>(T(spec_.r_cut3 * spec_.r_cut3));
    const T *const positions = x_.data(), *const direction = e_.data();
    T* const gradient = part.gradient.data();
    const int rows3 = spec_.n_basis3 + 2;
    const T* columns = tables.radial_columns.empty() ? nullptr : tables.radial_columns.data();
    const Mask<T> lane = lanes<T>();
    Total<T> energy;

    for (int start = from; start < to; start += BATCH) {
      const int end = std::min(start + BATCH, to);
      int count[BATCH], first_block[BATCH + 1];

      // The neighbours inside the cutoff, packed together.
      const int most = list.near_start[end] - list.near_start[start] + BATCH * 2 * ROW;
      if (int(part.near.size()) < most) part.near.resize(2 * most);
      int32_t* const near = part.near.data();
      int blocks = 0;
      for (int p = start; p < end; ++p) {
        const int listed = list.near_start[p + 1] - list.near_start[p];
        const int32_t* js = &list.near[list.near_start[p]];
        int32_t* const mine = near + blocks * W;
        V xi[3];
        for (int c = 0; c < 3; ++c) xi[c] = broadcast<T>(positions[4 * p + c]);
        int n = 0;
        for (int k = 0; k < listed; k += W) {
          V d[4];
          fetch4(positions, js + k, d);
          for (int c = 0; c < 3; ++c) d[c] -= xi[c];
          box.nearest(d[0], d[1], d[2], [](V v) { return v; });
          const V r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
          n += append(mine + n, load_index<T>(js + k),
                      (r2 < cut2) & (lane < broadcast_mask(listed - k)));
        }
        if (n < 2) n = 0;
        count[p - start] = n;
        first_block[p - start] = blocks;
        blocks += (n + W - 1) / W;
        for (int k = n; k % W != 0; ++k) mine[k] = mine[0];
      }
      first_block[end - start] = blocks;
      if (part.packs.size() < std::size_t(blocks) * RECORD * PER)
        part.packs.resize(std::size_t(2 * blocks) * RECORD * PER);
      S* const records = reinterpret_cast<S*>(part.packs.data());
      if (THETA && part.cosines.size() < std::size_t(blocks) * W * PER)
        part.cosines.resize(std::size_t(2 * blocks) * W * PER);
      S* const cosines = reinterpret_cast<S*>(part.cosines.data());

      for (int p = start; p < end; ++p) {
        S xi[3];
        for (int c = 0; c < 3; ++c) xi[c] = K::fetch_one(positions, direction, p, c);
        for (int b = first_block[p - start]; b < first_block[p - start + 1]; ++b) {
          S* const at = records + b * RECORD;
          S d[4], r, inverse;
          K::fetch(positions, direction, near + b * W, d);
          for (int c = 0; c < 3; ++c) d[c] -= xi[c];
          box.nearest(d[0], d[1], d[2], K::value);
          K::norm(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], r, inverse);
          at[INVERSE] = inverse;
          for (int c = 0; c < 3; ++c) at[UNIT + c] = d[c] * inverse;
          S t = (r - r_min) * inverse_width;
          const Index<T> row = locate(t, last, K::value);
          const Mask<T> inside =
              lane < broadcast_mask(count[p - start] - (b - first_block[p - start]) * W);
          for (int m = 0; m < NR; ++m) {
            V c[4];
            coefficients(tables.radial.data() + 4 * m * rows3,
                         columns ? columns + 128 * m : nullptr, row, c);
            const S value = K::select(inside, ((t * c[3] + c[2]) * t + c[1]) * t + c[0]);
            const S rate = K::select(
                inside, ((t * (c[3] * T(3)) + c[2] * T(2)) * t + c[1]) * inverse_width);
            if (NT == 1) {
              at[G + m] = value;
              at[SLOPE + m] = rate;
            } else {
              Mask<T> types;
              for (int w = 0; w < W; ++w) types[w] = list.type[near[b * W + w]];
              for (int a = 0; a < NT; ++a) {
                const Mask<T> same = types == broadcast_mask(a);
                at[G + a * NR + m] = K::select(same, value);
                at[SLOPE + a * NR + m] = K::select(same, rate);
              }
            }
          }
          // h[q][l] = sum_q' angular[q][q'][l] g_q'; with THETA l times that.
          const T* const angular = &tables.angular[std::size_t(list.type[p]) * Q * Q * D];
          for (int q = 0; q < Q; ++q) {
            S h[D] = {};
            for (int r = 0; r < Q; ++r)
              for (int l = THETA ? 1 : 0; l < D; ++l)
                h[l] += at[G + r] * broadcast<T>(angular[(q * Q + r) * D + l]);
            for (int l = THETA ? 1 : 0; l < D; ++l)
              at[H + q * D + l] = THETA ? h[l] * broadcast<T>(T(l)) : h[l];
          }
        }
      }

      for (int p = start; p < end; ++p) {
        const int b0 = first_block[p - start], b1 = first_block[p - start + 1];
        const int n = count[p - start];
        for (int b = b0; b < b1; ++b) {
          S* const at = records + b * RECORD;
          int first = 0, final = NR;
          channels(near, b, b0 * W + n, NT, NR, first, final);
          S fixed[QN ? QN : 1], g[QN ? QN : 1];
          S* const sums = QN ? fixed : at + SUM;
          if (!THETA)
            for (int q = 0; q < Q; ++q) sums[q] = S{};
          for (int q = 0; q < QN; ++q) g[QN ? q : 0] = at[G + q];
          S across[3] = {};
          const S ux = at[UNIT], uy = at[UNIT + 1], uz = at[UNIT + 2];
          // Over all k, k = j too, which is taken off again below. Plain: sums[q] over k of the
          // polynomial sum_l h[q][l] x^l. With THETA: sums[q'][l] of g_q' x^l, from which the
          // former follow.
          for (int k = 0; k < n; ++k) {
            const S* const other = records + (b0 + k / W) * RECORD;
            const int w = k % W;
            const S vx = K::lane(other + UNIT, w), vy = K::lane(other + UNIT + 1, w),
                    vz = K::lane(other + UNIT + 2, w);
            const S x = ux * vx + uy * vy + uz * vz;
            S dx{};
            for (int q = first; q < final; ++q) {
              const S* const h = other + H + q * D;
              S rate = K::lane(h + LP, w);
              if (THETA) {
                for (int l = LP - 1; l > 0; --l) rate = rate * x + K::lane(h + l, w);
              } else {
                S value = rate * x + K::lane(h + LP - 1, w);
                for (int l = LP - 2; l >= 0; --l) {
                  rate = rate * x + value;
                  value = value * x + K::lane(h + l, w);
                }
                sums[q] += value;
              }
              dx += (QN ? g[QN ? q : 0] : at[G + q]) * rate;
            }
            across[0] += dx * vx;
            across[1] += dx * vy;
            across[2] += dx * vz;
            if (THETA) cosines[k] = x;
          }
          if (THETA)
            for (int q = 0; q < Q; ++q) {
              S powers[D] = {};
              for (int k = 0; k < n; ++k) {
                if (NT > 1 && list.type[near[b0 * W + k]] != q / NR) continue;
                const S x = cosines[k];
                S term = K::lane(records + (b0 + k / W) * RECORD + G + q, k % W);
                for (int l = 0; l < LP; ++l) {
                  powers[l] += term;
                  term = term * x;
                }
                powers[LP] += term;
              }
              for (int l = 0; l < D; ++l) at[SUM + q * D + l] = powers[l];
            }
          for (int c = 0; c < 3; ++c) at[ACROSS + c] = across[c];
          if (QN && !THETA)
            for (int q = 0; q < QN; ++q) at[SUM + q] = fixed[QN ? q : 0];
        }
      }

      for (int p = start; p < end; ++p) {
        const T* const angular = &tables.angular[std::size_t(list.type[p]) * Q * Q * D];
        const int b0 = first_block[p - start], b1 = first_block[p - start + 1];
        V own[4] = {};
        for (int b = b0; b < b1; ++b) {
          S* const at = records + b * RECORD;
          int first = 0, final = NR;
          channels(near, b, b0 * W + count[p - start], NT, NR, first, final);
          const S *const u = at + UNIT, *const across = at + ACROSS;
          // k = j: in `across` it points along u, and that part is projected out.
          const S x = u[0] * u[0] + u[1] * u[1] + u[2] * u[2];
          if (THETA)
            for (int q = 0; q < Q; ++q) {
              S term = at[G + q];
              for (int l = 0; l < D; ++l) {
                at[SUM + q * D + l] -= term;
                term = term * x;
              }
            }
          S along{};
          V total{};
          for (int q = first; q < final; ++q) {
            S value{};
            if (THETA) {
              for (int s = 0; s < Q * D; ++s)
                value += at[SUM + s] * broadcast<T>(angular[q * Q * D + s]);
            } else {
              S self = at[H + q * D + LP];
              for (int l = LP - 1; l >= 0; --l) self = self * x + at[H + q * D + l];
              value = at[SUM + q] - self;
            }
            along += at[SLOPE + q] * value;
            if (!DUAL) total += K::value(at[G + q]) * K::value(value);
          }
          if (!DUAL) energy.add(total);
          const S radial = across[0] * u[0] + across[1] * u[1] + across[2] * u[2];
          V out[4] = {};
          for (int c = 0; c < 3; ++c) {
            const S gc = along * u[c] + (across[c] - radial * u[c]) * at[INVERSE];
            out[c] = K::result(gc);
            own[c] -= out[c];
          }
          add4(gradient, near + b * W, out);
          if (THETA) {
            V* m = &part.angular[std::size_t(list.type[p]) * Q * Q * D];
            for (int q = first; q < final; ++q)
              for (int s = 0; s < Q * D; ++s)
                m[q * Q * D + s] += K::product_result(at[G + q], at[SUM + s]);
          }
        }
        add4_sum(gradient + 4 * p, own);
      }
    }
    part.energy += 0.5 * energy.value();
  }

  // The channels that a block's neighbours have; neighbours are sorted by type.
  void channels(const int32_t* near, int block, int end, int n_types, int n_radial, int& first,
                int& final) const {
    if (n_types == 1) return;
    first = list.type[near[block * W]] * n_radial;
    final = (list.type[near[std::min(block * W + W, end) - 1]] + 1) * n_radial;
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
