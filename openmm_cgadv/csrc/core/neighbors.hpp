// Which beads are near which: a Verlet list with a skin, built from cells, never missing a pair.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "box.hpp"
#include "simd.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

// A component of a bead's position is data[bead * bead_stride + component * axis_stride].
struct Positions {
  const double* data;
  int64_t bead_stride, axis_stride;
  double operator()(int64_t bead, int axis) const {
    return data[bead * bead_stride + axis * axis_stride];
  }
};

// Beads are kept in an order of their own (that of the cells). `order[p]` is the caller's bead at
// place p. All lists speak of places.
//
// Half list: place p sees every place q > p within r_cut + skin, in
// half[half_start[p] .. half_start[p] + half_count[p]), padded with p itself to a multiple of `pad`;
// rows follow one another.
// Short list: place p sees every place within r_short + skin, sorted by type and then place, in
// near[near_start[p] .. near_start[p + 1]).
//
// Excluded pairs are in neither list.
//
// Two beads can only come within r_cut unlisted when the two longest displacements since the list
// was built add up to more than the skin: then it is rebuilt.
class Neighbors {
 public:
  std::vector<int32_t> order, half, half_start, half_count, near, near_start;
  std::vector<int32_t> type;       // of the bead at a place
  int64_t builds = 0;

  Neighbors(double r_cut, double r_short, double skin, int pad)
      : r_cut_(r_cut), r_short_(r_short), skin_wanted_(skin), pad_(pad) {}

  int size() const { return int(order.size()); }
  double r_cut() const { return r_cut_; }
  double r_short() const { return r_short_; }

  // Pairs [count,2] of beads, out of n, that are no neighbours however near.
  void exclude(int64_t n, const int64_t* pairs, int64_t count) {
    excluded_.assign(count > 0 ? n : 0, {});
    for (int64_t k = 0; k < count; ++k)
      for (int side = 0; side < 2; ++side)
        excluded_[pairs[2 * k + side]].push_back(int32_t(pairs[2 * k + 1 - side]));
    forget();
  }

  // The next update builds a new list, so that what follows does not depend on what was before.
  void forget() { valid_ = false; }

  // Makes the list valid for these positions and returns them in places' order as records
  // (x, y, z, 0), each in one image that is near its image at the last build.
  template <class T>
  void update(int64_t n, Positions pos, const int64_t* types, const Box& box, Array<T>& records,
              int threads) {
    records.resize(4 * n);
    threads_ = threads;
    if (valid_ && box == box_ && track(n, pos, records.data())) return;
    build(n, pos, types, box);
    for (int64_t p = 0; p < n; ++p) {
      for (int c = 0; c < 3; ++c) records[4 * p + c] = T(wrapped_[3 * p + c]);
      records[4 * p + 3] = 0;
    }
  }

 private:
  // What a contiguous range of places sees.
  struct Part {
    std::vector<int32_t> half, pairs, found, found_near;
  };

  double r_cut_, r_short_, skin_wanted_, skin_ = 0;
  int pad_, threads_ = 1;
  bool all_pairs_ = false, valid_ = false;
  Box box_;
  std::vector<std::vector<int32_t>> excluded_;  // of each bead; empty if there are none at all
  std::vector<int64_t> types_;
  std::vector<double> built_, wrapped_;  // [3 p + c] at the last build: as given, and wrapped
  Array<float> fx_, fy_, fz_;
  std::vector<int32_t> cell_, cell_start_;
  std::vector<Part> parts_;

  template <class T>
  bool track(int64_t n, Positions pos, T* records) {
    double first = 0, second = 0;
    const bool rectangular = box_.rectangular();
    const double ia = 1 / box_.ax, ib = 1 / box_.by, ic = 1 / box_.cz;
    for (int64_t p = 0; p < n; ++p) {
      const int64_t i = order[p];
      double x = pos(i, 0) - built_[3 * p], y = pos(i, 1) - built_[3 * p + 1],
             z = pos(i, 2) - built_[3 * p + 2];
      if (rectangular) {
        x -= box_.ax * std::nearbyint(x * ia);
        y -= box_.by * std::nearbyint(y * ib);
        z -= box_.cz * std::nearbyint(z * ic);
      } else {
        box_.nearest(x, y, z);
      }
      const double d2 = x * x + y * y + z * z;
      // Written so that a NaN comes first and stays there.
      if (d2 > second || d2 != d2) {
        if (d2 > first || d2 != d2) {
          second = first;
          first = d2;
        } else {
          second = d2;
        }
      }
      records[4 * p] = T(wrapped_[3 * p] + x);
      records[4 * p + 1] = T(wrapped_[3 * p + 1] + y);
      records[4 * p + 2] = T(wrapped_[3 * p + 2] + z);
      records[4 * p + 3] = 0;
    }
    if (!std::isfinite(first)) return false;
    return all_pairs_ || std::sqrt(first) + std::sqrt(second) <= skin_;
  }

  void build(int64_t n, Positions pos, const int64_t* types, const Box& box) {
    for (int64_t i = 0; i < n; ++i)
      for (int c = 0; c < 3; ++c)
        if (!std::isfinite(pos(i, c)))
          throw Explosion("position of bead " + std::to_string(i) + " is not finite", i);
    const double longest = std::max(r_cut_, r_short_), half_width = box.half_width();
    if (longest > half_width * 1.0000001)
      throw InvalidInput("cutoff " + std::to_string(longest) +
                               " nm is longer than half the box, " + std::to_string(half_width) +
                               " nm");
    ++builds;
    valid_ = false;
    box_ = box;
    types_.assign(types, types + n);
    skin_ = std::min(skin_wanted_, half_width - longest);
    // A list that would have to be rebuilt all the time is worth less than none.
    all_pairs_ = skin_ < 0.25 * skin_wanted_ && n <= 4000;
    skin_ = std::max(skin_, 0.0);

    sort_into_cells(n, pos, longest);
    // Distances below are in single precision: this much wider, the list misses nothing.
    const double slack = 1e-6 * (box.ax + box.by + box.cz + longest);
    const double huge = 1e15;  // its square is a finite float
    auto radius = [&](double cut) {
      return cut <= 0 ? -1 : all_pairs_ ? huge : cut + skin_ + slack;
    };
    fill(n, radius(r_cut_), radius(r_short_));
    valid_ = true;
  }

  // Along the last axis, where a bead's cells follow one another in memory, cells are REACH times
  // narrower than the list's radius; along the others as wide.
  static constexpr int REACH = 8;
  int cells_[3] = {1, 1, 1};

  void sort_into_cells(int64_t n, Positions pos, double longest) {
    const Box& b = box_;
    // Heights of the box over its faces.
    const double volume = b.ax * b.by * b.cz;
    const double cross_ab = b.ax * b.by;
    const double cross_ac = b.ax * std::hypot(b.cy, b.cz);
    const double bc[3] = {b.by * b.cz, -b.bx * b.cz, b.bx * b.cy - b.by * b.cx};
    const double cross_bc = std::sqrt(bc[0] * bc[0] + bc[1] * bc[1] + bc[2] * bc[2]);
    const double height[3] = {volume / cross_bc, volume / cross_ac, volume / cross_ab};
    for (int c = 0; c < 3; ++c) {
      const int reach = c == 2 ? REACH : 1;
      const double wanted = height[c] / (longest + skin_) * 0.999999 * reach;
      cells_[c] = all_pairs_ ? 1 : int(std::min(wanted, 64.0 * reach));
      if (cells_[c] < 2 * reach + 1) cells_[c] = 1;
    }
    // More cells than beads only cost time.
    while (int64_t(cells_[0]) * cells_[1] * cells_[2] > 4 * REACH * (n + 27))
      for (int c = 0; c < 3; ++c)
        if (cells_[c] > (c == 2 ? 2 * REACH + 1 : 3)) --cells_[c];

    std::vector<double> w(3 * n);
    cell_.resize(n);
    const int n_cells = cells_[0] * cells_[1] * cells_[2];
    cell_start_.assign(n_cells + 1, 0);
    for (int64_t i = 0; i < n; ++i) {
      double x = pos(i, 0), y = pos(i, 1), z = pos(i, 2);
      b.wrap(x, y, z);
      if (!std::isfinite(x + y + z))
        throw Explosion("bead " + std::to_string(i) + " is too far from the box", i);
      w[3 * i] = x, w[3 * i + 1] = y, w[3 * i + 2] = z;
      double s[3];
      s[2] = z / b.cz;
      s[1] = (y - s[2] * b.cy) / b.by;
      s[0] = (x - s[1] * b.bx - s[2] * b.cx) / b.ax;
      int k[3];
      for (int c = 0; c < 3; ++c)
        k[c] = std::min(int((s[c] - std::floor(s[c])) * cells_[c]), cells_[c] - 1);
      cell_[i] = (k[0] * cells_[1] + k[1]) * cells_[2] + k[2];
      ++cell_start_[cell_[i] + 1];
    }
    std::partial_sum(cell_start_.begin(), cell_start_.end(), cell_start_.begin());
    std::vector<int32_t> next(cell_start_.begin(), cell_start_.end() - 1);
    order.resize(n);
    for (int64_t i = 0; i < n; ++i) order[next[cell_[i]]++] = int32_t(i);

    built_.resize(3 * n), wrapped_.resize(3 * n);
    type.assign(n + ROW, 0);
    fx_.assign(n + ROW, 0), fy_.assign(n + ROW, 0), fz_.assign(n + ROW, 0);
    for (int64_t p = 0; p < n; ++p) {
      const int64_t i = order[p];
      for (int c = 0; c < 3; ++c) built_[3 * p + c] = pos(i, c), wrapped_[3 * p + c] = w[3 * i + c];
      fx_[p] = float(w[3 * i]), fy_[p] = float(w[3 * i + 1]), fz_[p] = float(w[3 * i + 2]);
      type[p] = int32_t(types_[i]);
    }
  }

  void fill(int64_t n, double r_half, double r_near) {
    half_start.resize(n), half_count.resize(n);
    near_start.assign(n + 1, 0);
    const int n_parts = int(std::max<int64_t>(1, std::min<int64_t>(threads_, n / 1024)));
    parts_.resize(n_parts);
#pragma omp parallel for num_threads(n_parts) schedule(static, 1)
    for (int t = 0; t < n_parts; ++t)
      fill_part(parts_[t], int(n * t / n_parts), int(n * (t + 1) / n_parts), r_half, r_near);

    half.clear();
    for (int t = 0; t < n_parts; ++t) {
      const int32_t before = int32_t(half.size());
      for (int64_t p = n * t / n_parts; p < n * (t + 1) / n_parts; ++p) half_start[p] += before;
      half.insert(half.end(), parts_[t].half.begin(), parts_[t].half.end());
      for (const int32_t place : parts_[t].pairs) ++near_start[place + 1];
    }
    // No list ends at the end of memory: a pack read from it never leaves it.
    half.resize(half.size() + ROW, 0);

    std::partial_sum(near_start.begin(), near_start.end(), near_start.begin());
    near.assign(near_start[n] + ROW, 0);
    std::vector<int32_t> next(near_start.begin(), near_start.end() - 1);
    for (const Part& part : parts_)
      for (std::size_t k = 0; k < part.pairs.size(); k += 2) {
        const int32_t p = part.pairs[k], q = part.pairs[k + 1];
        near[next[p]++] = q;
        near[next[q]++] = p;
      }
    bool several = false;
    for (int64_t i = 1; i < n; ++i) several = several || types_[i] != types_[0];
    if (several)
      for (int p = 0; p < n; ++p)
        std::stable_sort(near.begin() + near_start[p], near.begin() + near_start[p + 1],
                         [&](int32_t a, int32_t b) { return type[a] < type[b]; });
  }

  void fill_part(Part& part, int from, int to, double r_half, double r_near) {
    const int n = int(order.size());
    const float half2 = float(r_half * std::abs(r_half)), near2 = float(r_near * std::abs(r_near));
    const PackBox<float> box(box_);
    constexpr int W = Simd<float>::W;
    part.half.clear(), part.pairs.clear();
    part.found.resize(n + 2 * ROW), part.found_near.resize(n + 2 * ROW);
    const Pack<float> beyond = broadcast(std::numeric_limits<float>::infinity());
    int32_t *const found = part.found.data(), *const found_near = part.found_near.data();
    const int n1 = cells_[1], n2 = cells_[2];
    for (int p = from; p < to; ++p) {
      int m = 0, m_near = 0;
      const Pack<float> x = broadcast(fx_[p]), y = broadcast(fy_[p]), z = broadcast(fz_[p]);
      auto scan = [&](int first, int last) {
        for (int q = std::max(first, p + 1); q < last; q += W) {
          Pack<float> dx = load(&fx_[q]) - x, dy = load(&fy_[q]) - y, dz = load(&fz_[q]) - z;
          box.nearest(dx, dy, dz, [](Pack<float> v) { return v; });
          const Index<float> place = lanes<float>() + q;
          Pack<float> r2 = dx * dx + dy * dy + dz * dz;
          if (q + W > last) r2 = place < last ? r2 : beyond;
          m += append(found + m, place, r2 <= half2);
          m_near += append(found_near + m_near, place, r2 <= near2);
        }
      };
      const int cell = cell_[order[p]], k0 = cell / (n1 * n2), k1 = cell / n2 % n1, k2 = cell % n2;
      for (int d0 = cells_[0] > 1 ? -1 : 0; d0 <= (cells_[0] > 1 ? 1 : 0); ++d0)
        for (int d1 = n1 > 1 ? -1 : 0; d1 <= (n1 > 1 ? 1 : 0); ++d1) {
          const int row = ((k0 + d0 + cells_[0]) % cells_[0] * n1 + (k1 + d1 + n1) % n1) * n2;
          auto range = [&](int first, int last) {
            scan(cell_start_[row + first], cell_start_[row + last + 1]);
          };
          if (n2 == 1) {
            range(0, 0);
          } else {
            range(std::max(k2 - REACH, 0), std::min(k2 + REACH, n2 - 1));
            if (k2 < REACH) range(k2 - REACH + n2, n2 - 1);
            if (k2 + REACH >= n2) range(0, k2 + REACH - n2);
          }
        }
      if (!excluded_.empty()) {
        const std::vector<int32_t>& excluded = excluded_[order[p]];
        auto without = [&](int32_t* list, int count) {
          return int(std::remove_if(list, list + count, [&](int32_t q) {
                       return std::find(excluded.begin(), excluded.end(), order[q]) !=
                              excluded.end();
                     }) - list);
        };
        m = without(found, m), m_near = without(found_near, m_near);
      }
      half_start[p] = int32_t(part.half.size()), half_count[p] = m;
      part.half.insert(part.half.end(), found, found + m);
      part.half.resize((part.half.size() + pad_ - 1) / pad_ * pad_, p);
      for (int k = 0; k < m_near; ++k) {
        part.pairs.push_back(p);
        part.pairs.push_back(found_near[k]);
      }
    }
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
