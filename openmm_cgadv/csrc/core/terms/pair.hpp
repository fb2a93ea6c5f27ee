// Pair energy: u(r) of every pair inside r_cut, a cubic spline for each pair of bead types and a
// repulsive core below r_min.
#pragma once

#include "../spline.hpp"
#include "packed.hpp"
#include "term.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

template <class T>
struct PairWork : Work {
  Array<T> moments;
};

template <class T>
class PairTerm final : public TermOf<T, PairTerm<T>, PairWork<T>> {
 public:
  // Integers: functions of a spline. Numbers: cutoff; r_min and stiffness of the core of each pair
  // of types.
  PairTerm(int n_types, PackedTerm packed)
      : n_types_(n_types), n_pairs_(n_types * (n_types + 1) / 2), n_basis_(packed.integer()),
        rows_(n_basis_ + 2), r_cut_(packed.number()), begin_(packed.numbers(n_pairs_)),
        core_(packed.numbers(n_pairs_)) {
    packed.finish();
    if (n_basis_ < 1) PackedTerm::wrong("pair functions");
    for (int a = 0; a < n_types; ++a)
      for (int b = 0; b < n_types; ++b) {
        const int p = pair(a, b);
        offset_.push_back(p * rows_);
        r_min_.push_back(T(begin_[p]));
        inverse_width_.push_back(T(n_basis_ / (r_cut_ - begin_[p])));
      }
  }

  List list() const override { return List::half; }
  double r_cut() const override { return r_cut_; }
  int64_t n_parameters() const override { return int64_t(n_pairs_) * n_basis_; }
  int64_t n_moments() const override { return int64_t(n_pairs_) * rows_ * 4; }
  void drop_fixed() override { std::fill(core_.begin(), core_.end(), 0.0); }

  void set_parameters(const double* theta) override {
    std::vector<double> table(n_pairs_ * rows_ * 4, 0.0);
    for (int p = 0; p < n_pairs_; ++p) {
      double* t = &table[p * rows_ * 4];
      const double* c = theta + p * n_basis_;
      const double h = (r_cut_ - begin_[p]) / n_basis_;
      spline_rows(n_basis_, [&](int row, int d, int k, double w) { t[row * 4 + d] += w * c[k]; });
      t[3] -= core_[p] * h * h * h / 6;
    }
    records_.assign(table.begin(), table.end());
    if (n_types_ == 1) make_columns(table, rows_, columns_);
  }

  void clear_moments(Work& work) const override {
    static_cast<PairWork<T>&>(work).moments.assign(n_moments(), 0);
  }
  void collect(const Work& work, double* moments) const override {
    const Array<T>& from = static_cast<const PairWork<T>&>(work).moments;
    for (std::size_t k = 0; k < from.size(); ++k) moments[k] += double(from[k]);
  }
  void to_parameters(const double* moments, double factor, double* gradient) const override {
    for (int p = 0; p < n_pairs_; ++p)
      spline_rows(n_basis_, [&](int row, int d, int k, double w) {
        gradient[p * n_basis_ + k] += factor * w * moments[(p * rows_ + row) * 4 + d];
      });
  }

  template <bool DUAL, bool THETA>
  void run(const Beads<T>& beads, Sums<T>& sums, PairWork<T>& work, int from, int to) const {
    if (n_types_ == 1)
      run<DUAL, THETA, false>(beads, sums, work, from, to);
    else
      run<DUAL, THETA, true>(beads, sums, work, from, to);
  }

 private:
  using V = Pack<T>;
  static constexpr int W = Simd<T>::W;

  int n_types_, n_pairs_, n_basis_, rows_;
  double r_cut_;
  std::vector<double> begin_, core_;  // r_min and the core of every pair of types
  // Polynomials [(p * rows + row) * 4 + d]; where there is one type, in columns as well.
  Array<T> records_, columns_;
  // Of a pair of types [a * n_types + b].
  Array<T> r_min_, inverse_width_;
  std::vector<int32_t> offset_;

  int pair(int a, int b) const {
    if (a > b) std::swap(a, b);
    return a * n_types_ - a * (a - 1) / 2 + b - a;
  }

  // In three sweeps over some dozens of packs at a time: one pack's chain of dependent
  // instructions is long, and only short sweeps let the processor work on several packs at once.
  template <bool DUAL, bool THETA, bool TYPES>
  void run(const Beads<T>& beads, Sums<T>& sums, PairWork<T>& work, int from, int to) const {
    using K = Scalar<T, DUAL>;
    using S = typename K::S;
    struct Entry {
      S d[3], r2;
      int32_t listed, type;
    };
    constexpr int ENOUGH = 32;
    const PackBox<T> box(beads.box);
    const V zero{}, one = broadcast<T>(1), last = broadcast<T>(T(n_basis_));
    const Neighbors& list = beads.list;
    const T *records = records_.data(), *columns = columns_.empty() ? nullptr : columns_.data();
    const T *const x = beads.x, *const e = beads.e;
    T* const gradient = sums.gradient.data();
    const int n_types = n_types_, rows_of_table = rows_;
    const T *const begins = r_min_.data(), *const inverse_widths = inverse_width_.data();
    const int32_t* const offsets = offset_.data();
    const Mask<T> lane = lanes<T>();
    Total<T> energy;
    for (int start = from, end; start < to; start = end) {
      int packs = 0;
      for (end = start; end < to && packs < ENOUGH; ++end)
        packs += (list.half_count[end] + W - 1) / W;
      constexpr std::size_t SIZE = (sizeof(Entry) + sizeof(V) - 1) / sizeof(V);
      if (sums.scratch.size() < SIZE * packs) sums.scratch.resize(2 * SIZE * packs);
      Entry* const entries = reinterpret_cast<Entry*>(sums.scratch.data());
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
        V r_min = broadcast(begins[0]), inverse_width = broadcast(inverse_widths[0]);
        if (TYPES)
          for (int w = 0; w < W; ++w) {
            const int tt = at.type * n_types + list.type[js[k * W + w]];
            offset[w] = offsets[tt];
            r_min[w] = begins[tt];
            inverse_width[w] = inverse_widths[tt];
          }
        S t = (r - r_min) * inverse_width;
        const Index<T> row = locate<T>(t, last, K::value) + offset;
        V c[4];
        coefficients(records, TYPES ? nullptr : columns, rows_of_table, row, c);
        const S slope = ((t * (c[3] * T(3)) + c[2] * T(2)) * t + c[1]) * inverse_width * inverse;
        const Mask<T> listed = lane < broadcast_mask<T>(at.listed);
        if (!DUAL && beads.with_virial)
          for (int a = 0; a < 3; ++a)
            for (int b = 0; b < 3; ++b)
              sums.virial[3 * a + b].add(
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
          add4(work.moments.data(), rows, weights);
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
    sums.energy += energy.value();
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
