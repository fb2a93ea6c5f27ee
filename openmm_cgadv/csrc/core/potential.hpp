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
// handful of neighbours that a short cutoff leaves this costs less than spherical harmonics. Beads
// at the very place of i lie in no direction and are not among its neighbours.
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
  bool with_virial = false;
  double virial[9];   // of the last plain run with_virial: -sum d_a dU/dd_b over distances d
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
    // Rows of the half list get shorter with the place when there is one cell only, so for pairs
    // places are dealt out in small portions; portion s always goes to part s % n_parts.
    const int portion = n_parts == 1 ? n : std::max(32, std::min(512, n / (8 * n_parts)));
#pragma omp parallel for num_threads(n_parts) schedule(static, 1) if (n_parts > 1)
    for (int t = 0; t < n_parts; ++t) {
      parts_[t].clear(n, THETA, moments);
      for (int start = t * portion; start < n; start += n_parts * portion)
        pairs<DUAL, THETA>(tables, parts_[t], start, std::min(start + portion, n));
      const int end = int(int64_t(n) * (t + 1) / n_parts);
      for (int start = int(int64_t(n) * t / n_parts); start < end; start += 1024)
        triplets<DUAL, THETA>(tables, parts_[t], start, std::min(start + 1024, end));
    }
    energy = 0;
    std::fill(virial, virial + 9, 0.0);
    for (int t = 0; t < n_parts; ++t) {
      energy += parts_[t].energy;
      for (int k = 0; k < 9; ++k) virial[k] -= parts_[t].virial[k].value();
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

  // Minus that, [3,n] in the caller's order of beads.
  void forces(double* out) const {
    const int n = list.size();
    for (int c = 0; c < 3; ++c)
      for (int p = 0; p < n; ++p) out[c * n + list.order[p]] = -double(gradient(p, c));
  }

 private:
  using V = Pack<T>;
  static constexpr int W = Simd<T>::W;

  // What one thread adds up, and its scratch memory.
  struct Part {
    Array<T> gradient;        // [4 place + axis]
    double energy = 0;
    Total<T> virial[9];       // its negative
    Array<T> pair;            // conjugate to Tables::pair
    Array<V> angular;         // conjugate to Tables::angular
    // Of the three-body term: neighbours by bead, beads in their order of work, slots.
    std::vector<int32_t> near, first, count, ranked, unranked, bins, slots, neighbours;
    Array<V> packs;

    void clear(int n, bool theta, const Moments& moments) {
      gradient.assign(4 * n, 0);
      energy = 0;
      std::fill(virial, virial + 9, Total<T>{});
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
  void pairs(const Tables<T>& tables, Part& part, int from, int to) {
    if (spec_.n_types == 1)
      pairs<DUAL, THETA, false>(tables, part, from, to);
    else
      pairs<DUAL, THETA, true>(tables, part, from, to);
  }

  template <bool DUAL, bool THETA>
  void triplets(const Tables<T>& tables, Part& part, int from, int to) {
    if (!spec_.three_body) return;
    switch (tables.degree) {
      case 2: return triplets<DUAL, THETA, 2, 0>(tables, part, from, to);
      case 4:
        switch (spec_.n_radial) {
          case 1: return triplets<DUAL, THETA, 4, 1>(tables, part, from, to);
          case 2: return triplets<DUAL, THETA, 4, 2>(tables, part, from, to);
          case 3: return triplets<DUAL, THETA, 4, 3>(tables, part, from, to);
          default: return triplets<DUAL, THETA, 4, 0>(tables, part, from, to);
        }
      case 6: return triplets<DUAL, THETA, 6, 0>(tables, part, from, to);
      default: return triplets<DUAL, THETA, 8, 0>(tables, part, from, to);
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
        const Index<T> row = locate<T>(t, last, K::value) + offset;
        V c[4];
        coefficients(records, TYPES ? nullptr : columns, tables.rows, row, c);
        const S slope = ((t * (c[3] * T(3)) + c[2] * T(2)) * t + c[1]) * inverse_width * inverse;
        const Mask<T> listed = lane < broadcast_mask(at.listed);
        if (!DUAL && with_virial)
          for (int a = 0; a < 3; ++a)
            for (int b = 0; b < 3; ++b)
              part.virial[3 * a + b].add(
                  listed ? K::value(at.d[a]) * K::value(slope * at.d[b]) : zero);
        for (int a = 0; a < 3; ++a) at.d[a] = slope * at.d[a];
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

  // The neighbours inside the three-body cutoff of places [from, to), packed together, and how many
  // of each type there are.
  void find_near(Part& part, int from, int to) {
    const int n_types = spec_.n_types;
    part.near.resize(list.near_start[to] - list.near_start[from] + ROW);
    part.first.resize(to - from);
    part.count.assign((to - from) * n_types, 0);
    const PackBox<T> box(box_);
    const V cut2 = broadcast<T>(T(spec_.r_cut3 * spec_.r_cut3));
    const T* const positions = x_.data();
    const Mask<T> lane = lanes<T>();
    int32_t* const near = part.near.data();
    int end = 0;
    for (int p = from; p < to; ++p) {
      const int first = end, listed = list.near_start[p + 1] - list.near_start[p];
      const int32_t* js = &list.near[list.near_start[p]];
      V xi[3];
      for (int c = 0; c < 3; ++c) xi[c] = broadcast<T>(positions[4 * p + c]);
      for (int k = 0; k < listed; k += W) {
        V d[4];
        fetch4(positions, js + k, d);
        for (int c = 0; c < 3; ++c) d[c] -= xi[c];
        box.nearest(d[0], d[1], d[2], [](V v) { return v; });
        const V r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
        end += append(near + end, load_index<T>(js + k),
                      (r2 < cut2) & (r2 > V{}) & (lane < broadcast_mask(listed - k)));
      }
      part.first[p - from] = first;
      int32_t* const count = &part.count[(p - from) * n_types];
      if (n_types == 1)
        count[0] = end - first;
      else
        for (int k = first; k < end; ++k) ++count[list.type[near[k]]];
    }
  }

  // Sorts places [from, to) into part.ranked by the beads' types and, beads of one type, by their
  // numbers of neighbours: counting sorts, the last for the key that comes first.
  void rank(Part& part, int from, int to) {
    const int n = to - from, n_types = spec_.n_types;
    part.ranked.resize(n), part.unranked.resize(n);
    std::iota(part.ranked.begin(), part.ranked.end(), from);
    auto sort = [&](auto key) {
      int32_t largest = 0;
      for (int p = from; p < to; ++p) largest = std::max(largest, key(p));
      part.bins.assign(largest + 2, 0);
      for (int p = from; p < to; ++p) ++part.bins[key(p) + 1];
      std::partial_sum(part.bins.begin(), part.bins.end(), part.bins.begin());
      part.ranked.swap(part.unranked);
      for (const int32_t p : part.unranked) part.ranked[part.bins[key(p)]++] = p;
    };
    for (int a = n_types; a-- > 0;)
      sort([&](int p) { return part.count[(p - from) * n_types + a]; });
    if (n_types > 1) sort([&](int p) { return list.type[p]; });
  }

  // What the three-body term works on at a time: a pack of central beads of one type, each in a
  // lane of its own. Slot s of a lane is its s-th neighbour; all neighbours in a slot are of one
  // type; lanes that have fewer leave the slot empty, which costs little because beads with equally
  // many neighbours work together. Pairs of neighbours are then pairs of slots j < k, and nothing
  // crosses lanes.
  //
  // LP is the degree of the angular polynomials, RADIAL the number of radial functions; 0: known at
  // run time.
  template <class S, int LP, int RADIAL>
  struct Slots {
    const Spec& spec;
    int type;
    int32_t beads[W];
    int32_t* first;       // slots of type a: [first[a], first[a + 1])
    int32_t* neighbours;  // [slot][lane]
    S *records, *cosines;
    S* constant;          // sum over slots of h[q][0]

    int radial() const { return RADIAL ? RADIAL : spec.n_radial; }
    int channels() const { return radial() * spec.n_types; }
    // Fields of a slot's record, of which there are size(): direction and 1/r; g and dg/dt by
    // radial function; sums over the other slots; h[q][l], the polynomials in x (l > 0) that
    // multiply channel q of another neighbour.
    int size() const { return 7 + 3 * radial() + channels() * LP; }
    S* unit(int slot) const { return records + slot * size(); }
    S* inverse(int slot) const { return unit(slot) + 3; }
    S* across(int slot) const { return unit(slot) + 4; }
    S* g(int slot) const { return unit(slot) + 7; }
    S* slope(int slot) const { return g(slot) + radial(); }
    S* sum(int slot) const { return g(slot) + 2 * radial(); }
    S* h(int slot, int channel) const { return g(slot) + 3 * radial() + channel * LP; }
    // cos(theta) of slots j < k.
    S* cosine(int j, int k) const { return cosines + k * (k - 1) / 2 + j; }
  };

  template <bool DUAL, bool THETA, int LP, int RADIAL>
  void triplets(const Tables<T>& tables, Part& part, int from, int to) {
    using S = typename Scalar<T, DUAL>::S;
    constexpr int PER = sizeof(S) / sizeof(V);
    Slots<S, LP, RADIAL> slots{spec_};
    const int NT = spec_.n_types;
    Total<T> energy;
    find_near(part, from, to);
    rank(part, from, to);
    part.slots.resize(NT + 1);
    slots.first = part.slots.data();

    for (int start = from, end; start < to; start = end) {
      const int32_t* const ranked = &part.ranked[start - from];
      slots.type = list.type[ranked[0]];
      for (end = start + 1; end < std::min(start + W, to); ++end)
        if (list.type[ranked[end - start]] != slots.type) break;
      for (int w = 0; w < W; ++w) slots.beads[w] = ranked[std::min(w, end - start - 1)];

      slots.first[0] = 0;
      for (int a = 0; a < NT; ++a) {
        int32_t most = 0;
        for (int w = 0; w < W; ++w)
          most = std::max(most, part.count[(slots.beads[w] - from) * NT + a]);
        slots.first[a + 1] = slots.first[a] + most;
      }
      const int n = slots.first[NT];
      if (n < 2) continue;
      part.neighbours.resize(n * W);
      slots.neighbours = part.neighbours.data();
      const int n_cosines = THETA ? n * (n - 1) / 2 : 0;
      const std::size_t size = std::size_t(n * slots.size() + n_cosines + slots.channels()) * PER;
      if (part.packs.size() < size) part.packs.resize(2 * size);
      slots.records = reinterpret_cast<S*>(part.packs.data());
      slots.constant = slots.records + n * slots.size();
      slots.cosines = slots.constant + slots.channels();

      fill_slots<DUAL>(slots, tables, part, from, end - start);
      pair_slots<DUAL, THETA>(slots);
      if (THETA) add_moments<DUAL>(slots, part);
      const V total = add_gradient<DUAL>(slots, part);
      if (!DUAL) energy.add(total);
    }
    part.energy += 0.5 * energy.value();
  }

  // Of `used` lanes; the others repeat the last bead, without neighbours.
  template <bool DUAL, class S, int LP, int RADIAL>
  CGADV_INLINE void fill_slots(const Slots<S, LP, RADIAL>& slots, const Tables<T>& tables,
                               const Part& part, int from, int used) {
    using K = Scalar<T, DUAL>;
    constexpr int D = LP + 1;
    const int NR = slots.radial(), NT = spec_.n_types, Q = slots.channels(),
              rows = spec_.n_basis3 + 2;
    const PackBox<T> box(box_);
    const V last = broadcast<T>(T(spec_.n_basis3)), r_min = broadcast<T>(T(spec_.r_min3)),
            inverse_width = broadcast<T>(T(spec_.n_basis3 / (spec_.r_cut3 - spec_.r_min3)));
    const T *const positions = x_.data(), *const direction = e_.data();
    const T* const columns = tables.radial_columns.empty() ? nullptr : tables.radial_columns.data();
    const T* const angular = &tables.angular[std::size_t(slots.type) * Q * Q * D];
    for (int q = 0; q < Q; ++q) slots.constant[q] = S{};
    const int32_t* next[W];
    for (int w = 0; w < W; ++w) next[w] = &part.near[part.first[slots.beads[w] - from]];
    S xi[4];
    K::fetch(positions, direction, slots.beads, xi);
    for (int a = 0; a < NT; ++a) {
      int32_t counts[W];
      Mask<T> pack_of_counts;
      for (int w = 0; w < W; ++w)
        pack_of_counts[w] = counts[w] =
            w < used ? part.count[(slots.beads[w] - from) * NT + a] : 0;
      for (int j = slots.first[a]; j < slots.first[a + 1]; ++j) {
        const int k = j - slots.first[a];
        const Mask<T> inside = broadcast_mask(k) < pack_of_counts;
        int32_t* const js = slots.neighbours + j * W;
        for (int w = 0; w < W; ++w) js[w] = k < counts[w] ? *next[w]++ : slots.beads[w];
        S d[4], r, inverse;
        K::fetch(positions, direction, js, d);
        for (int c = 0; c < 3; ++c) d[c] -= xi[c];
        box.nearest(d[0], d[1], d[2], K::value);
        K::norm(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], r, inverse);
        *slots.inverse(j) = inverse;
        for (int c = 0; c < 3; ++c) slots.unit(j)[c] = d[c] * inverse;
        S t = (r - r_min) * inverse_width;
        const Index<T> row = locate<T>(t, last, K::value);
        for (int m = 0; m < NR; ++m) {
          V c[4];
          coefficients(tables.radial.data() + 4 * m * rows, columns ? columns + 128 * m : nullptr,
                       rows, row, c);
          const V tv = K::value(t), c3 = c[3] * T(3), c2 = c[2] * T(2);
          const V rate = (tv * c3 + c2) * tv + c[1];
          slots.g(j)[m] =
              K::select(inside, K::function(t, ((tv * c[3] + c[2]) * tv + c[1]) * tv + c[0], rate));
          slots.slope(j)[m] = K::select(inside, K::function(t, rate, (tv + tv) * c3 + c2));
        }
        // h[q][l] = sum_q' angular[q][q'][l] g_q'. Its l = 0 is summed over all neighbours, the own
        // share taken off.
        for (int q = 0; q < Q; ++q) {
          S h[D] = {};
          for (int m = 0; m < NR; ++m)
            for (int l = 0; l < D; ++l)
              h[l] += slots.g(j)[m] * broadcast<T>(angular[(q * Q + a * NR + m) * D + l]);
          for (int l = 1; l < D; ++l) slots.h(j, q)[l - 1] = h[l];
          slots.constant[q] += h[0];
          if (q / NR == a) slots.sum(j)[q % NR] = S{} - h[0];
        }
        for (int c = 0; c < 3; ++c) slots.across(j)[c] = S{};
      }
    }
  }

  // Adds up in every slot what the others hand to it: by radial function, the factor of g in the
  // energy; `across`, the derivative of the energy with its unit vector.
  template <bool DUAL, bool THETA, class S, int LP, int RADIAL>
  CGADV_INLINE void pair_slots(const Slots<S, LP, RADIAL>& slots) {
    using K = Scalar<T, DUAL>;
    constexpr int LOCAL = RADIAL ? RADIAL : 1;  // copies are local, and so in registers, if RADIAL
    const int NR = slots.radial(), NT = spec_.n_types;
    for (int a = 0; a < NT; ++a)
      for (int j = slots.first[a]; j < slots.first[a + 1]; ++j) {
        S local_g[LOCAL], local_sum[LOCAL];
        for (int m = 0; m < RADIAL; ++m)
          local_g[m] = slots.g(j)[m], local_sum[m] = slots.sum(j)[m];
        const S* const g = RADIAL ? local_g : slots.g(j);
        S* const sum = RADIAL ? local_sum : slots.sum(j);
        S u[3], across[3];
        for (int c = 0; c < 3; ++c) u[c] = slots.unit(j)[c], across[c] = slots.across(j)[c];
        for (int b = a; b < NT; ++b)
          for (int k = std::max(j + 1, slots.first[b]); k < slots.first[b + 1]; ++k) {
            const S* const v = slots.unit(k);
            const S x = K::fma(u[0], v[0], K::fma(u[1], v[1], u[2] * v[2]));
            S dx{};
            for (int m = 0; m < NR; ++m) {
              const S* const h = slots.h(k, a * NR + m);
              S value = h[LP - 1], rate = value;
              for (int l = LP - 2; l >= 0; --l) {
                value = K::fma(value, x, h[l]);
                rate = K::fma(rate, x, value);
              }
              sum[m] = K::fma(value, x, sum[m]);
              dx = K::fma(g[m], rate, dx);
            }
            for (int m = 0; m < NR; ++m) {
              const S* const h = slots.h(j, b * NR + m);
              S value = h[LP - 1];
              for (int l = LP - 2; l >= 0; --l) value = K::fma(value, x, h[l]);
              slots.sum(k)[m] = K::fma(value, x, slots.sum(k)[m]);
            }
            for (int c = 0; c < 3; ++c) {
              across[c] = K::fma(dx, v[c], across[c]);
              slots.across(k)[c] = K::fma(dx, u[c], slots.across(k)[c]);
            }
            if (THETA) *slots.cosine(j, k) = x;
          }
        for (int m = 0; m < RADIAL; ++m) slots.sum(j)[m] = local_sum[m];
        for (int c = 0; c < 3; ++c) slots.across(j)[c] = across[c];
      }
  }

  // Moments of g_q(r_ij) g_q'(r_ik) x^l over slots j < k: for every j first the powers of x times
  // g_q' over its k.
  template <bool DUAL, class S, int LP, int RADIAL>
  CGADV_INLINE void add_moments(const Slots<S, LP, RADIAL>& slots, Part& part) {
    using K = Scalar<T, DUAL>;
    constexpr int D = LP + 1, LOCAL = RADIAL ? RADIAL : 1;
    const int NR = slots.radial(), Q = slots.channels();
    for (int a = 0; a < spec_.n_types; ++a)
      for (int q2 = a * NR; q2 < Q; ++q2) {
        const int b = q2 / NR;
        // [m][l] at moments[m * Q * D + l].
        V* const moments = &part.angular[((std::size_t(slots.type) * Q + a * NR) * Q + q2) * D];
        V local[LOCAL][D];
        for (int m = 0; m < RADIAL; ++m)
          for (int l = 0; l < D; ++l) local[m][l] = moments[m * Q * D + l];
        for (int j = slots.first[a]; j < slots.first[a + 1]; ++j) {
          S powers[D] = {};
          for (int k = std::max(j + 1, slots.first[b]); k < slots.first[b + 1]; ++k) {
            S term = slots.g(k)[q2 - b * NR];
            for (int l = 0; l < LP; ++l) {
              powers[l] += term;
              term = term * *slots.cosine(j, k);
            }
            powers[LP] += term;
          }
          for (int m = 0; m < NR; ++m) {
            V* const sum = RADIAL ? local[m] : moments + m * Q * D;
            for (int l = 0; l < D; ++l) sum[l] += K::product_result(slots.g(j)[m], powers[l]);
          }
        }
        for (int m = 0; m < RADIAL; ++m)
          for (int l = 0; l < D; ++l) moments[m * Q * D + l] = local[m][l];
      }
  }

  // Returns twice the energies of the beads; without meaning when DUAL.
  template <bool DUAL, class S, int LP, int RADIAL>
  CGADV_INLINE V add_gradient(const Slots<S, LP, RADIAL>& slots, Part& part) {
    using K = Scalar<T, DUAL>;
    const V inverse_width = broadcast<T>(T(spec_.n_basis3 / (spec_.r_cut3 - spec_.r_min3)));
    T* const gradient = part.gradient.data();
    V own[4] = {}, total{};
    for (int a = 0; a < spec_.n_types; ++a)
      for (int j = slots.first[a]; j < slots.first[a + 1]; ++j) {
        const S *const u = slots.unit(j), *const across = slots.across(j);
        S along{};
        for (int m = 0; m < slots.radial(); ++m) {
          const S value = slots.sum(j)[m] + slots.constant[a * slots.radial() + m];
          along = K::fma(slots.slope(j)[m], value, along);
          if (!DUAL) total += K::value(slots.g(j)[m]) * K::value(value);
        }
        along = along * inverse_width;
        // What turns the unit vector: the part along it is projected out.
        const S radial = across[0] * u[0] + across[1] * u[1] + across[2] * u[2];
        V out[4] = {};
        for (int c = 0; c < 3; ++c) {
          const S gc = along * u[c] + (across[c] - radial * u[c]) * *slots.inverse(j);
          out[c] = K::result(gc);
          own[c] -= out[c];
        }
        if (!DUAL && with_virial) {
          const V inverse = K::value(*slots.inverse(j)),
                  r = inverse > V{} ? broadcast<T>(1) / inverse : V{};
          for (int b = 0; b < 3; ++b)
            for (int c = 0; c < 3; ++c)
              part.virial[3 * b + c].add(r * K::value(u[b]) * out[c]);
        }
        add4(gradient, slots.neighbours + j * W, out);
      }
    add4(gradient, slots.beads, own);
    return total;
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
