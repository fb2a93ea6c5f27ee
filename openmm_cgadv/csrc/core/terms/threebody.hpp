// Three-body energy. For every bead i with neighbours j, k inside r_cut and x = cos(theta_jik):
//   1/2 sum_{j != k} sum_{q q' p} angular[q][q'][p] g_q(r_ij) g_q'(r_ik) x^p,
// which is the density correlation sum_m A_iqlm A_iq'lm minus its self term, written out. For the
// handful of neighbours that a short cutoff leaves this costs less than spherical harmonics. Beads
// at the very place of i lie in no direction and are not among its neighbours.
#pragma once

#include <cstring>

#include "../spline.hpp"
#include "packed.hpp"
#include "term.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

constexpr int MAX_L = 8;

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

template <class T>
struct ThreeBodyWork : Work {
  Array<Pack<T>> moments;
  // Neighbours by bead, beads in their order of work, slots.
  std::vector<int32_t> near, first, count, ranked, unranked, bins, slots, neighbours;
};

template <class T>
class ThreeBodyTerm final : public TermOf<T, ThreeBodyTerm<T>, ThreeBodyWork<T>> {
 public:
  // Integers: functions of a spline, radial functions, l_max. Numbers: r_min, cutoff, coefficients of
  // the radial functions.
  ThreeBodyTerm(int n_types, PackedTerm packed)
      : n_types_(n_types), n_basis_(packed.integer()), n_radial_(packed.integer()),
        l_max_(packed.integer()), degree_(padded_degree(l_max_)), r_min_(packed.number()),
        r_cut_(packed.number()), radial_(packed.numbers(int64_t(n_radial_) * n_basis_)) {
    packed.finish();
    if (n_basis_ < 1 || n_radial_ < 1) PackedTerm::wrong("three-body functions");
    if (l_max_ < 0 || l_max_ > MAX_L)
      throw InvalidInput("the compiled kernels handle three-body l_max up to " +
                               std::to_string(MAX_L) + ", not " + std::to_string(l_max_));
    std::vector<double> table((n_basis_ + 2) * n_radial_ * 4, 0.0);
    for (int n = 0; n < n_radial_; ++n) {
      const double* g = &radial_[n * n_basis_];
      spline_rows(n_basis_, [&](int row, int d, int k, double w) {
        table[(n * (n_basis_ + 2) + row) * 4 + d] += w * g[k];
      });
    }
    records_.assign(table.begin(), table.end());
    make_columns(table, n_basis_ + 2, columns_);
  }

  List list() const override { return List::near; }
  double r_cut() const override { return r_cut_; }
  int64_t n_parameters() const override {
    return int64_t(n_types_) * channels() * (channels() + 1) / 2 * (l_max_ + 1);
  }
  int64_t n_moments() const override {
    return int64_t(n_types_) * channels() * channels() * (degree_ + 1);
  }

  void set_parameters(const double* theta) override {
    const int Q = channels(), D = degree_ + 1;
    const double* c = theta;
    std::vector<double> table(n_types_ * Q * Q * D, 0.0);
    for (int a = 0; a < n_types_; ++a)
      for (int q = 0; q < Q; ++q)
        for (int r = q; r < Q; ++r, c += l_max_ + 1)
          for (int l = 0; l <= l_max_; ++l)
            for (int p = 0; p <= l; ++p) {
              table[((a * Q + q) * Q + r) * D + p] += c[l] * legendre().c[l][p];
              table[((a * Q + r) * Q + q) * D + p] += c[l] * legendre().c[l][p];
            }
    angular_.assign(table.begin(), table.end());
  }

  void clear_moments(Work& work) const override {
    static_cast<ThreeBodyWork<T>&>(work).moments.assign(n_moments(), V{});
  }
  void collect(const Work& work, double* moments) const override {
    const Array<V>& from = static_cast<const ThreeBodyWork<T>&>(work).moments;
    for (std::size_t k = 0; k < from.size(); ++k) moments[k] += double(sum<T>(from[k]));
  }
  void to_parameters(const double* moments, double factor, double* gradient) const override {
    const int Q = channels(), D = degree_ + 1;
    double* g = gradient;
    for (int a = 0; a < n_types_; ++a)
      for (int q = 0; q < Q; ++q)
        for (int r = q; r < Q; ++r, g += l_max_ + 1)
          for (int l = 0; l <= l_max_; ++l)
            for (int p = 0; p <= l; ++p)
              g[l] += factor * legendre().c[l][p] *
                      (moments[((a * Q + q) * Q + r) * D + p] +
                       moments[((a * Q + r) * Q + q) * D + p]);
  }

  template <bool DUAL, bool THETA>
  void run(const Beads<T>& beads, Sums<T>& sums, ThreeBodyWork<T>& work, int from, int to) const {
    switch (degree_) {
      case 2: return run<DUAL, THETA, 2, 0>(beads, sums, work, from, to);
      case 4:
        switch (n_radial_) {
          case 1: return run<DUAL, THETA, 4, 1>(beads, sums, work, from, to);
          case 2: return run<DUAL, THETA, 4, 2>(beads, sums, work, from, to);
          case 3: return run<DUAL, THETA, 4, 3>(beads, sums, work, from, to);
          default: return run<DUAL, THETA, 4, 0>(beads, sums, work, from, to);
        }
      case 6: return run<DUAL, THETA, 6, 0>(beads, sums, work, from, to);
      default: return run<DUAL, THETA, 8, 0>(beads, sums, work, from, to);
    }
  }

 private:
  using V = Pack<T>;
  static constexpr int W = Simd<T>::W;

  int n_types_, n_basis_, n_radial_, l_max_, degree_;
  double r_min_, r_cut_;
  std::vector<double> radial_;
  // Polynomials of the radial functions [(n * rows + row) * 4 + d], and the same in columns.
  Array<T> records_, columns_;
  // [((a * Q + q) * Q + q') * (degree + 1) + p], symmetric in q, q'. Moments are over pairs of
  // neighbours j < k only, so that they are not.
  Array<T> angular_;

  int channels() const { return n_types_ * n_radial_; }
  static const Legendre& legendre() {
    static const Legendre table;
    return table;
  }

  // The neighbours inside the three-body cutoff of places [from, to), packed together, and how many
  // of each type there are.
  void find_near(const Beads<T>& beads, ThreeBodyWork<T>& work, int from, int to) const {
    const Neighbors& list = beads.list;
    const int n_types = n_types_;
    work.near.resize(list.near_start[to] - list.near_start[from] + ROW);
    work.first.resize(to - from);
    work.count.assign((to - from) * n_types, 0);
    const PackBox<T> box(beads.box);
    const V cut2 = broadcast<T>(T(r_cut_ * r_cut_));
    const T* const positions = beads.x;
    const Mask<T> lane = lanes<T>();
    int32_t* const near = work.near.data();
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
                      (r2 < cut2) & (r2 > V{}) & (lane < broadcast_mask<T>(listed - k)));
      }
      work.first[p - from] = first;
      int32_t* const count = &work.count[(p - from) * n_types];
      if (n_types == 1)
        count[0] = end - first;
      else
        for (int k = first; k < end; ++k) ++count[list.type[near[k]]];
    }
  }

  // Sorts places [from, to) into work.ranked by the beads' types and, beads of one type, by their
  // numbers of neighbours: counting sorts, the last for the key that comes first.
  void rank(const Neighbors& list, ThreeBodyWork<T>& work, int from, int to) const {
    const int n = to - from, n_types = n_types_;
    work.ranked.resize(n), work.unranked.resize(n);
    std::iota(work.ranked.begin(), work.ranked.end(), from);
    auto sort = [&](auto key) {
      int32_t largest = 0;
      for (int p = from; p < to; ++p) largest = std::max(largest, key(p));
      work.bins.assign(largest + 2, 0);
      for (int p = from; p < to; ++p) ++work.bins[key(p) + 1];
      std::partial_sum(work.bins.begin(), work.bins.end(), work.bins.begin());
      work.ranked.swap(work.unranked);
      for (const int32_t p : work.unranked) work.ranked[work.bins[key(p)]++] = p;
    };
    for (int a = n_types; a-- > 0;)
      sort([&](int p) { return work.count[(p - from) * n_types + a]; });
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
    const ThreeBodyTerm& term;
    int type;
    int32_t beads[W];
    int32_t* first;       // slots of type a: [first[a], first[a + 1])
    int32_t* neighbours;  // [slot][lane]
    S *records, *cosines;
    S* constant;          // sum over slots of h[q][0]

    int radial() const { return RADIAL ? RADIAL : term.n_radial_; }
    int channels() const { return radial() * term.n_types_; }
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
  void run(const Beads<T>& beads, Sums<T>& sums, ThreeBodyWork<T>& work, int from, int to) const {
    using S = typename Scalar<T, DUAL>::S;
    constexpr int PER = sizeof(S) / sizeof(V);
    Slots<S, LP, RADIAL> slots{*this};
    const Neighbors& list = beads.list;
    const int NT = n_types_;
    Total<T> energy;
    find_near(beads, work, from, to);
    rank(list, work, from, to);
    work.slots.resize(NT + 1);
    slots.first = work.slots.data();

    for (int start = from, end; start < to; start = end) {
      const int32_t* const ranked = &work.ranked[start - from];
      slots.type = list.type[ranked[0]];
      for (end = start + 1; end < std::min(start + W, to); ++end)
        if (list.type[ranked[end - start]] != slots.type) break;
      for (int w = 0; w < W; ++w) slots.beads[w] = ranked[std::min(w, end - start - 1)];

      slots.first[0] = 0;
      for (int a = 0; a < NT; ++a) {
        int32_t most = 0;
        for (int w = 0; w < W; ++w)
          most = std::max(most, work.count[(slots.beads[w] - from) * NT + a]);
        slots.first[a + 1] = slots.first[a] + most;
      }
      const int n = slots.first[NT];
      if (n < 2) continue;
      work.neighbours.resize(n * W);
      slots.neighbours = work.neighbours.data();
      const int n_cosines = THETA ? n * (n - 1) / 2 : 0;
      const std::size_t size = std::size_t(n * slots.size() + n_cosines + slots.channels()) * PER;
      if (sums.scratch.size() < size) sums.scratch.resize(2 * size);
      slots.records = reinterpret_cast<S*>(sums.scratch.data());
      slots.constant = slots.records + n * slots.size();
      slots.cosines = slots.constant + slots.channels();

      fill_slots<DUAL>(slots, beads, work, from, end - start);
      pair_slots<DUAL, THETA>(slots);
      if (THETA) add_moments<DUAL>(slots, work);
      const V total = add_gradient<DUAL>(slots, beads.with_virial, sums);
      if (!DUAL) energy.add(total);
    }
    sums.energy += 0.5 * energy.value();
  }

  // Of `used` lanes; the others repeat the last bead, without neighbours.
  template <bool DUAL, class S, int LP, int RADIAL>
  CGADV_INLINE void fill_slots(const Slots<S, LP, RADIAL>& slots, const Beads<T>& beads,
                               const ThreeBodyWork<T>& work, int from, int used) const {
    using K = Scalar<T, DUAL>;
    constexpr int D = LP + 1;
    const int NR = slots.radial(), NT = n_types_, Q = slots.channels(),
              rows = n_basis_ + 2;
    const PackBox<T> box(beads.box);
    const V last = broadcast<T>(T(n_basis_)), r_min = broadcast<T>(T(r_min_)),
            inverse_width = broadcast<T>(T(n_basis_ / (r_cut_ - r_min_)));
    const T *const positions = beads.x, *const direction = beads.e;
    const T* const columns = columns_.empty() ? nullptr : columns_.data();
    const T* const angular = &angular_[std::size_t(slots.type) * Q * Q * D];
    for (int q = 0; q < Q; ++q) slots.constant[q] = S{};
    const int32_t* next[W];
    for (int w = 0; w < W; ++w) next[w] = &work.near[work.first[slots.beads[w] - from]];
    S xi[4];
    K::fetch(positions, direction, slots.beads, xi);
    for (int a = 0; a < NT; ++a) {
      int32_t counts[W];
      Mask<T> pack_of_counts;
      for (int w = 0; w < W; ++w)
        pack_of_counts[w] = counts[w] =
            w < used ? work.count[(slots.beads[w] - from) * NT + a] : 0;
      for (int j = slots.first[a]; j < slots.first[a + 1]; ++j) {
        const int k = j - slots.first[a];
        const Mask<T> inside = broadcast_mask<T>(k) < pack_of_counts;
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
          coefficients(records_.data() + 4 * m * rows, columns ? columns + 128 * m : nullptr,
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
  CGADV_INLINE void pair_slots(const Slots<S, LP, RADIAL>& slots) const {
    using K = Scalar<T, DUAL>;
    constexpr int LOCAL = RADIAL ? RADIAL : 1;  // copies are local, and so in registers, if RADIAL
    const int NR = slots.radial(), NT = n_types_;
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
  CGADV_INLINE void add_moments(const Slots<S, LP, RADIAL>& slots, ThreeBodyWork<T>& work) const {
    using K = Scalar<T, DUAL>;
    constexpr int D = LP + 1, LOCAL = RADIAL ? RADIAL : 1;
    const int NR = slots.radial(), Q = slots.channels();
    for (int a = 0; a < n_types_; ++a)
      for (int q2 = a * NR; q2 < Q; ++q2) {
        const int b = q2 / NR;
        // [m][l] at moments[m * Q * D + l].
        V* const moments = &work.moments[((std::size_t(slots.type) * Q + a * NR) * Q + q2) * D];
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
  CGADV_INLINE V add_gradient(const Slots<S, LP, RADIAL>& slots, bool with_virial, Sums<T>& sums) const {
    using K = Scalar<T, DUAL>;
    const V inverse_width = broadcast<T>(T(n_basis_ / (r_cut_ - r_min_)));
    T* const gradient = sums.gradient.data();
    V own[4] = {}, total{};
    for (int a = 0; a < n_types_; ++a)
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
              sums.virial[3 * b + c].add(r * K::value(u[b]) * out[c]);
        }
        add4(gradient, slots.neighbours + j * W, out);
      }
    add4(gradient, slots.beads, own);
    return total;
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
