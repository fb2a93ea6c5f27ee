// Which pairs are in range and what auxiliary variables they carry.
#pragma once

#include <numeric>

#include "../neighbors.hpp"
#include "place.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

// The pairs in range along a trajectory. Every pair of beads i < j in range has a slot. Slots come in
// packs of beads' pairs of one kind (pair of types); a slot without a pair has i = j, which makes its
// friction zero. A pair keeps its slot as long as it is in range, but for a tidying now and then. What
// a pack's slots carry lies together: array[(pack * fields + field) * W + lane].
class PairSlots {
 public:
  int threads = 1;

  PairSlots(const PairTables& tables, int64_t n, const int64_t* types, const double* masses,
            double skin)
      : tables_(&tables), types_(types, types + n),
        list_(tables.shape.r_cut, 0, skin, 1), kinds_(tables.shape.kinds()) {
    for (int64_t i = 0; i < n; ++i) inverse_masses_.push_back(1 / masses[i]);
  }

  // Pairs [.,2] that were in range in the last step, in order, and their auxiliary variables
  // [.,3 K].
  void read(std::vector<int32_t>& beads, std::vector<double>& auxiliary) const {
    struct Slot {
      int32_t i, j, slot;
      int kind;
    };
    std::vector<Slot> slots;
    for (int k = 0; k < int(kinds_.size()); ++k)
      for (std::size_t s = 0; s < kinds_[k].i.size(); ++s)
        if (kinds_[k].i[s] != kinds_[k].j[s])
          slots.push_back({kinds_[k].i[s], kinds_[k].j[s], int32_t(s), k});
    std::sort(slots.begin(), slots.end(), [](const Slot& a, const Slot& b) {
      return a.i != b.i ? a.i < b.i : a.j < b.j;
    });
    beads.clear(), auxiliary.clear();
    for (const Slot& s : slots) {
      beads.push_back(s.i), beads.push_back(s.j);
      for (int c = 0; c < 3 * extra(); ++c)
        auxiliary.push_back(sigma(kinds_[s.kind], s.slot)[c * W]);
    }
  }

  // What comes next depends on these pairs i < j and auxiliary variables, and on nothing before.
  void write(int64_t pairs, const int32_t* beads, const double* auxiliary) {
    list_.forget();
    lists_ = 0;
    for (Kind& kind : kinds_) kind = Kind();
    for (int64_t p = 0; p < pairs; ++p) {
      const int32_t i = beads[2 * p], j = beads[2 * p + 1];
      Kind& kind = kinds_[tables_->shape.kind(types_[i], types_[j])];
      if (kind.free.empty()) grow(kind, W);
      const int32_t slot = occupy(kind, i, j);
      for (int c = 0; c < 3 * extra(); ++c)
        sigma(kind, slot)[c * W] = auxiliary[p * 3 * extra() + c];
    }
  }

 protected:
  static constexpr int W = pairs::W;

  struct Kind {
    // Of listed pairs: places of their beads in the list; slot, or -1. There is a pack of places 0
    // and 0 behind, which are never in range.
    std::size_t listed = 0;
    std::vector<int32_t> place_i, place_j, slot;
    // Of slots: beads, slot in the step before. Slots without a pair.
    std::vector<int32_t> i, j, before, free;
    Array<double> sigma;     // fields 3 k + c
    Array<double> response;  // of sigma to velocities, fields 2 k + (across, excess along)
  };

  const PairTables* tables_;
  std::vector<int64_t> types_;
  Neighbors list_;
  std::vector<Kind> kinds_;
  Box box_;
  Array<double> x_;  // records (x, y, z, 1/m)

  int extra() const { return tables_->shape.extra; }

  // Gives the slots to the pairs that are in range now.
  void find_pairs(int64_t t, const PairNoise& noise, Positions x, const Box& box) {
    const int64_t n = int64_t(types_.size());
    box_ = box;
    x_.resize(4 * n);
    for (int64_t i = 0; i < n; ++i) {
      for (int c = 0; c < 3; ++c) x_[4 * i + c] = x(i, c);
      x_[4 * i + 3] = inverse_masses_[i];
    }
    list_.update(n, x, types_.data(), box, listed_x_, threads);
    if (list_.builds != builds_) new_list();
    builds_ = list_.builds;
    for (int k = 0; k < int(kinds_.size()); ++k) come_and_go(t, noise, k);
  }

 private:
  static constexpr int32_t NEAR_PACKS = 16;
  static constexpr int64_t TIDY = 16;  // lists

  std::vector<double> inverse_masses_;
  Array<float> listed_x_;
  int64_t builds_ = 0, lists_ = 0;  // lists since others wrote the pairs
  std::vector<int32_t> come_, place_, start_, second_, slot_, mark_;

  double* sigma(Kind& kind, int32_t slot) const {
    return kind.sigma.data() + std::size_t(slot / W) * 3 * extra() * W + slot % W;
  }
  const double* sigma(const Kind& kind, int32_t slot) const {
    return kind.sigma.data() + std::size_t(slot / W) * 3 * extra() * W + slot % W;
  }

  // A slot for a pair that has come; there must be one.
  int32_t occupy(Kind& kind, int32_t a, int32_t b) const {
    const int32_t slot = kind.free.back();
    kind.free.pop_back();
    kind.i[slot] = std::min(a, b), kind.j[slot] = std::max(a, b), kind.before[slot] = -1;
    return slot;
  }

  void release(Kind& kind, int32_t slot) const {
    kind.i[slot] = kind.j[slot] = 0;
    kind.before[slot] = -1;
    for (int c = 0; c < 3 * extra(); ++c) sigma(kind, slot)[c * W] = 0;
    kind.free.push_back(slot);
  }

  // What pairs the list has, and which of them have slots.
  void new_list() {
    const int32_t n = list_.size();
    place_.resize(n), mark_.assign(n, -1), start_.assign(n + 1, 0);
    for (int32_t p = 0; p < n; ++p) place_[list_.order[p]] = p;
    // Pairs that have slots, by the first of their places.
    auto each_pair = [&](auto f) {
      for (const Kind& kind : kinds_)
        for (std::size_t s = 0; s < kind.i.size(); ++s)
          if (kind.i[s] != kind.j[s]) {
            const int32_t p = place_[kind.i[s]], q = place_[kind.j[s]];
            f(std::min(p, q), std::max(p, q), int32_t(s));
          }
    };
    each_pair([&](int32_t p, int32_t, int32_t) { ++start_[p + 1]; });
    std::partial_sum(start_.begin(), start_.end(), start_.begin());
    second_.resize(start_[n]), slot_.resize(start_[n]);
    // Filling moves every start to its end, the next one's.
    each_pair([&](int32_t p, int32_t q, int32_t s) { second_[start_[p]] = q, slot_[start_[p]++] = s; });

    for (Kind& kind : kinds_) {
      kind.listed = 0;
      for (auto list : {&Kind::place_i, &Kind::place_j, &Kind::slot})
        (kind.*list).resize(list_.half.size() + Simd<float>::W);
    }
    auto kind_of = [&](int32_t p, int32_t q) -> Kind& {
      return kinds_[tables_->shape.kind(list_.type[p], list_.type[q])];
    };
    for (int32_t p = 0; p < n; ++p) {
      const int32_t from = p > 0 ? start_[p - 1] : 0;
      for (int32_t e = from; e < start_[p]; ++e) mark_[second_[e]] = slot_[e];
      for (int32_t k = 0; k < list_.half_count[p]; ++k) {
        const int32_t q = list_.half[list_.half_start[p] + k];
        Kind& kind = kind_of(p, q);
        const std::size_t m = kind.listed++;
        kind.place_i[m] = p, kind.place_j[m] = q;
        kind.slot[m] = mark_[q], mark_[q] = -1;
      }
      // The rest have gone farther than the list sees.
      for (int32_t e = from; e < start_[p]; ++e)
        if (const int32_t q = second_[e]; mark_[q] >= 0) {
          release(kind_of(p, q), mark_[q]);
          mark_[q] = -1;
        }
    }
    for (Kind& kind : kinds_) {
      const auto end = std::ptrdiff_t(kind.listed);
      std::fill_n(kind.place_i.begin() + end, Simd<float>::W, 0);
      std::fill_n(kind.place_j.begin() + end, Simd<float>::W, 0);
      std::fill_n(kind.slot.begin() + end, Simd<float>::W, -1);
      if (lists_ % TIDY == 0) tidy(kind);
    }
    ++lists_;
  }

  // Slots in the order of the list: what is near is then near in memory.
  void tidy(Kind& kind) const {
    Kind to;
    grow(to, kind.i.size() - kind.free.size());
    for (std::size_t m = 0; m < kind.listed; ++m) {
      const int32_t from = kind.slot[m];
      if (from < 0) continue;
      const int32_t slot = kind.slot[m] = occupy(to, kind.i[from], kind.j[from]);
      to.before[slot] = from;
      for (int c = 0; c < 3 * extra(); ++c) sigma(to, slot)[c * W] = sigma(kind, from)[c * W];
    }
    for (auto list : {&Kind::i, &Kind::j, &Kind::before, &Kind::free}) (kind.*list).swap(to.*list);
    kind.sigma.swap(to.sigma), kind.response.swap(to.response);
  }

  // Slots for some more pairs. They are handed out across some packs at a time: the pairs of one
  // bead, which follow one another in the list, are not in one pack, where their sums would wait
  // for each other, but still near, so that what beads carry is in the first cache.
  void grow(Kind& kind, std::size_t pairs) const {
    const int32_t packs = int32_t((pairs + W - 1) / W), first = int32_t(kind.i.size());
    for (int32_t k = packs * W - 1; k >= 0; --k) {
      const int32_t start = k / (NEAR_PACKS * W) * NEAR_PACKS, here = k - start * W,
                    some = std::min(NEAR_PACKS, packs - start);
      kind.free.push_back(first + (start + here % some) * W + here / some);
    }
    const std::size_t slots = first + packs * W;
    kind.i.resize(slots, 0), kind.j.resize(slots, 0), kind.before.resize(slots, -1);
    kind.sigma.resize(slots * 3 * extra(), 0.0);
    kind.response.resize(slots * 2 * extra(), 0.0);
  }

  bool in_range(int32_t i, int32_t j) const {
    double d[3];
    for (int c = 0; c < 3; ++c) d[c] = x_[4 * i + c] - x_[4 * j + c];
    box_.nearest(d[0], d[1], d[2]);
    const double r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
    return r2 > 0 && r2 < tables_->shape.r_cut * tables_->shape.r_cut;
  }

  void come_and_go(int64_t t, const PairNoise& noise, int number) {
    Kind& kind = kinds_[number];
    // Single precision tells of most pairs that nothing has changed.
    const PackBox<float> box(box_);
    const double cut = tables_->shape.r_cut,
                 doubt = 2e-6 * cut * (box_.ax + box_.by + box_.cz + cut);
    const Pack<float> surely_in = broadcast(float(cut * cut - doubt)),
                      surely_out = broadcast(float(cut * cut + doubt));
    come_.clear();
    for (int k = 0; k < int(kind.listed); k += Simd<float>::W) {
      Pack<float> a[4], b[4], r2{};
      fetch4(listed_x_.data(), &kind.place_i[k], a);
      fetch4(listed_x_.data(), &kind.place_j[k], b);
      for (int c = 0; c < 3; ++c) a[c] -= b[c];
      box.nearest(a[0], a[1], a[2], [](Pack<float> v) { return v; });
      for (int c = 0; c < 3; ++c) r2 += a[c] * a[c];
      const Mask<float> had = load_index<float>(&kind.slot[k]) >= 0;
      int32_t doubtful[2 * Simd<float>::W];
      const int number = append(doubtful, lanes<float>() + k,
                                had ? !(r2 < surely_in) : !(r2 > surely_out));
      if (number == 0) continue;
      float of[Simd<float>::W];
      store<float>(of, r2);
      for (int d = 0; d < number; ++d) {
        const int32_t m = doubtful[d], slot = kind.slot[m];
        if (m >= int(kind.listed)) break;
        const float found = of[m - k];
        const bool in = found > float(doubt) && found < float(cut * cut - doubt) ||
                        !(found > float(cut * cut + doubt)) &&
                            in_range(list_.order[kind.place_i[m]], list_.order[kind.place_j[m]]);
        if (in == (slot >= 0)) continue;
        if (slot < 0) {
          come_.push_back(m);
          continue;
        }
        release(kind, slot);
        kind.slot[m] = -1;
      }
    }
    if (come_.size() > kind.free.size()) grow(kind, come_.size() - kind.free.size());
    for (int32_t& m : come_)
      m = kind.slot[m] = occupy(kind, list_.order[kind.place_i[m]], list_.order[kind.place_j[m]]);
    for (std::size_t start = 0; start < come_.size(); start += NOISE_LANES) {
      const int m = int(std::min<std::size_t>(NOISE_LANES, come_.size() - start));
      int32_t i[NOISE_LANES], j[NOISE_LANES];
      for (int k = 0; k < m; ++k)
        i[k] = kind.i[come_[start + k]], j[k] = kind.j[come_[start + k]];
      float g[3 * MAX_PAIR_EXTRA + 4][NOISE_LANES];
      noise.fill(t, m, i, j, true, 3 * extra(), g);
      for (int k = 0; k < m; ++k) {
        const int32_t slot = come_[start + k];
        const double inverse_mass = 0.5 * (x_[4 * i[k] + 3] + x_[4 * j[k] + 3]),
                     spread = std::sqrt(tables_->shape.kT * inverse_mass);
        for (int c = 0; c < 3 * extra(); ++c) sigma(kind, slot)[c * W] = spread * double(g[c][k]);
      }
    }
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
