// Pairwise friction with memory: one step of it, the same step again with its result known, and its
// adjoint. The equations are those of openmm_cgadv/dynamics/pair_friction.py and pair_rollout.py.
//
// Every pair of beads i < j in range has a slot. Slots come in packs of beads' pairs of one kind
// (pair of types); a slot without a pair has i = j, which makes its friction zero. A pair keeps its
// slot as long as it is in range, but for a tidying now and then. What a pack's slots carry lies
// together: array[(pack * fields + field) * W + lane].
#pragma once

#include <type_traits>

#include "neighbors.hpp"
#include "random.hpp"
#include "spline.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

constexpr int MAX_PAIR_EXTRA = 6;

struct PairFrictionShape {
  int n_types, extra, n_basis;  // extra: auxiliary vectors a pair, K
  double r_cut;
  const double* r_min;    // [kinds]
  const double* splines;  // [kinds,K+1,2,n_basis]
  const double* memory;   // [kinds,K,K]
  const double* self;     // [n_types], friction of each bead
  double kT, dt, tolerance;

  int kinds() const { return n_types * (n_types + 1) / 2; }
  int functions() const { return 2 * (extra + 1); }
  int rows() const { return n_basis + 2; }
  int kind(int64_t a, int64_t b) const {
    if (a > b) std::swap(a, b);
    return int(a * n_types - a * (a - 1) / 2 + b - a);
  }
};

// The parameters, made ready for one time step. Function 2 k is f_k along the pair, 2 k + 1 across.
struct PairTables {
  PairFrictionShape shape;
  Array<double> table, columns;  // of kind * functions + function
  std::vector<double> inverse;   // C = (1 + dt/2 A)^-1 [kinds,K,K]
  std::vector<double> root;      // sqrt(alpha) [kinds,K]

  explicit PairTables(const PairFrictionShape& s) : shape(s) {
    const int rows = s.rows(), K = s.extra;
    std::vector<double> all(s.kinds() * s.functions() * rows * 4, 0.0);
    for (int f = 0; f < s.kinds() * s.functions(); ++f)
      spline_rows(s.n_basis, [&](int row, int d, int k, double w) {
        all[(f * rows + row) * 4 + d] += w * s.splines[f * s.n_basis + k];
      });
    table.assign(all.begin(), all.end());
    make_columns(all, rows, columns);
    for (int kind = 0; kind < s.kinds(); ++kind) {
      // Gauss and Jordan; a matrix whose symmetric part is positive needs no pivots.
      std::vector<double> m(2 * K * K, 0.0);
      const int width = 2 * K;
      for (int i = 0; i < K; ++i) {
        for (int j = 0; j < K; ++j)
          m[i * width + j] = 0.5 * s.dt * s.memory[(kind * K + i) * K + j] + (i == j ? 1 : 0);
        m[i * width + K + i] = 1;
        root.push_back(std::sqrt(s.memory[(kind * K + i) * K + i]));
      }
      for (int i = 0; i < K; ++i) {
        const double pivot = m[i * width + i];
        for (int c = 0; c < width; ++c) m[i * width + c] /= pivot;
        for (int j = 0; j < K; ++j) {
          const double factor = m[j * width + i];
          if (j != i)
            for (int c = 0; c < width; ++c) m[j * width + c] -= factor * m[i * width + c];
        }
      }
      for (int i = 0; i < K; ++i)
        for (int j = 0; j < K; ++j) inverse.push_back(m[i * width + K + j]);
    }
  }
  PairTables(const PairTables&) = delete;
};

namespace pairs {

using V = Pack<double>;
constexpr int W = Simd<double>::W;
static_assert(NOISE_LANES % W == 0, "a batch of noise is made of packs");

// Calls f with the number of auxiliary vectors as a constant.
template <class F>
void with_extra(int extra, F f) {
  switch (extra) {
    case 0: return f(std::integral_constant<int, 0>());
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    case 4: return f(std::integral_constant<int, 4>());
    case 5: return f(std::integral_constant<int, 5>());
    case 6: return f(std::integral_constant<int, 6>());
    default: throw std::runtime_error("pair friction has more auxiliary vectors than " +
                                      std::to_string(MAX_PAIR_EXTRA));
  }
}

CGADV_INLINE V widen(const float* p) {
  typedef float Half __attribute__((vector_size(CGADV_BYTES / 2)));
  Half h;
  __builtin_memcpy(&h, p, sizeof h);
  return __builtin_convertvector(h, V);
}

CGADV_INLINE Index<double> numbers() {
  return __builtin_convertvector(lanes<double>(), Index<double>);
}

CGADV_INLINE V dot(const V* a, const V* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// out = difference of records i and j.
CGADV_INLINE void difference(const double* records, const int32_t* i, const int32_t* j, V* out) {
  V a[4], b[4];
  fetch4(records, i, a);
  fetch4(records, j, b);
  for (int c = 0; c < 3; ++c) out[c] = a[c] - b[c];
}

CGADV_INLINE void scatter(double* records, const int32_t* i, const int32_t* j, const V* g) {
  const V plus[4] = {g[0], g[1], g[2], V{}}, minus[4] = {-g[0], -g[1], -g[2], V{}};
  add4(records, i, plus);
  add4(records, j, minus);
}

// Where a pack of pairs is and its functions there.
template <int K>
struct Place {
  V unit[3], inverse;  // from i to j; 1/r
  V mass, inverse_mass;  // mu, 1/mu
  V t;
  Index<double> row;
  V f[2 * K + 2], slope[2 * K + 2];

  // From records (x, y, z, 1/m).
  template <bool SLOPES>
  CGADV_INLINE void find(const PairTables& tables, int kind, const PackBox<double>& box,
                         const double* records, const int32_t* i, const int32_t* j) {
    const PairFrictionShape& s = tables.shape;
    V r, a[4], b[4];
    fetch4(records, j, a);
    fetch4(records, i, b);
    for (int c = 0; c < 3; ++c) unit[c] = a[c] - b[c];
    inverse_mass = (a[3] + b[3]) * 0.5;
    mass = broadcast(1.0) / inverse_mass;
    auto same = [](V v) { return v; };
    box.nearest(unit[0], unit[1], unit[2], same);
    const V r2 = dot(unit, unit);
    const Mask<double> apart = r2 > V{};
    r = sqrt(r2);
    inverse = apart ? broadcast(1.0) / r : V{};
    for (int c = 0; c < 3; ++c) unit[c] *= inverse;
    const V width = broadcast(s.n_basis / (s.r_cut - s.r_min[kind]));
    t = (r - broadcast(s.r_min[kind])) * width;
    row = locate<double>(t, broadcast(double(s.n_basis)), same);
    for (int k = 0; k < 2 * K + 2; ++k) {
      const int number = kind * (2 * K + 2) + k;
      V c[4];
      coefficients(&tables.table[number * s.rows() * 4],
                   tables.columns.empty() ? nullptr : &tables.columns[number * 128], s.rows(), row,
                   c);
      const V value = ((c[3] * t + c[2]) * t + c[1]) * t + c[0];
      f[k] = apart ? value : V{};
      if (SLOPES) {
        const V rate = ((t * (c[3] * 3.0) + c[2] * 2.0) * t + c[1]) * width;
        slope[k] = apart ? rate : V{};
      }
    }
  }

  // g[k] = sum_l matrix[k * to_row + l * to_column] f_l, along and across.
  CGADV_INLINE void respond(const double* matrix, int to_row, int to_column, V (*g)[2]) const {
    for (int k = 0; k < K; ++k)
      for (int d = 0; d < 2; ++d) {
        g[k][d] = V{};
        for (int l = 0; l < K; ++l)
          g[k][d] += f[2 * l + 2 + d] * matrix[k * to_row + l * to_column];
      }
  }

  // Drag of a pair, mu (h T_0^2 + h^2 sum_k T_k g_k): into the solver's geometry, and of the
  // relative velocity u taken off the force.
  CGADV_INLINE void drag(const V (*g)[2], double h, double* geometry, const V* u, V* force) const {
    V sum[2];
    for (int d = 0; d < 2; ++d) {
      sum[d] = V{};
      for (int k = 0; k < K; ++k) sum[d] += f[2 * k + 2 + d] * g[k][d];
      sum[d] = mass * (f[d] * f[d] * h + sum[d] * (h * h));
    }
    const V across = sum[1], excess = sum[0] - across, along = excess * dot(u, unit);
    for (int c = 0; c < 3; ++c) {
      force[c] -= across * u[c] + along * unit[c];
      store<double>(geometry + c * W, unit[c]);
    }
    store<double>(geometry + 3 * W, across);
    store<double>(geometry + 4 * W, excess);
  }

  // out += sum_k T_k y_k of the auxiliary vectors y.
  CGADV_INLINE void couple(const V (*y)[3], V* out) const {
    V along{};
    for (int k = 0; k < K; ++k) {
      const V across = f[2 * k + 3];
      along += (f[2 * k + 2] - across) * dot(unit, y[k]);
      for (int c = 0; c < 3; ++c) out[c] += across * y[k][c];
    }
    for (int c = 0; c < 3; ++c) out[c] += along * unit[c];
  }
};

// Solves v + 1/m sum_pairs +- drag (v_i - v_j) = right side by conjugate gradients from a start, in
// the scalar product that masses weigh, where the matrix is symmetric. They stop when the residual
// is small beside the start and the first residual. Wherever they stop, forces of pairs add up to
// zero. A bead with friction of its own moves as if it were heavier by dt/2 m times that friction.
class Solver {
 public:
  struct Kind {
    const std::vector<int32_t>*i, *j;
    Array<double> geometry;  // unit vector, drag across, its excess along
  };
  static constexpr int FIELDS = 5;
  std::vector<Kind> kinds;
  int parts = 1;        // threads, each of which works on a share of every kind's slots
  Array<double> v;      // [4 n]: start before, solution after
  Array<double> force;  // [4 n]: masses times the start's residual

  void resize(const PairFrictionShape& s, int64_t n, const int64_t* types, const double* masses) {
    mass_.assign(4 * n, 0.0), inverse_.assign(4 * n, 0.0);
    for (int64_t i = 0; i < n; ++i) {
      const double drag = 0.5 * s.dt * masses[i] * s.self[types[i]];
      if (drag > 0)
        for (int c = 0; c < 3; ++c) rubbed_.push_back({int32_t(4 * i + c), drag});
      for (int c = 0; c < 3; ++c)
        mass_[4 * i + c] = masses[i] + drag, inverse_[4 * i + c] = 1 / (masses[i] + drag);
    }
    force.assign(4 * n, 0.0), v.assign(4 * n, 0.0);
    drag_.resize(4 * n), residual_.resize(4 * n), search_.resize(4 * n);
  }

  // Drag of each bead's own friction on v, off the force.
  void rub(double* force) const {
    for (const Rubbed& r : rubbed_) force[r.component] -= r.drag * v[r.component];
  }

  // Noise of each bead's own friction, which a pair of a bead with itself has.
  void jostle(int64_t t, const PairNoise& noise, double kT, double* force) const {
    float g[4][NOISE_LANES];
    for (std::size_t start = 0; start < rubbed_.size(); start += 3 * NOISE_LANES) {
      const int m = int(std::min<std::size_t>(NOISE_LANES, (rubbed_.size() - start) / 3));
      int32_t beads[NOISE_LANES];
      for (int k = 0; k < m; ++k) beads[k] = rubbed_[start + 3 * k].component / 4;
      noise.fill(t, m, beads, beads, false, 3, g);
      for (int k = 0; k < 3 * m; ++k) {
        const Rubbed& r = rubbed_[start + k];
        force[r.component] += std::sqrt(kT * r.drag) * double(g[k % 3][k / 3]);
      }
    }
  }

  // Slots [from, to) of a part, in whole batches of noise.
  struct Share {
    std::size_t from, to;
    Share(std::size_t slots, int part, int parts) {
      const std::size_t batches = (slots + NOISE_LANES - 1) / NOISE_LANES;
      from = std::min(slots, batches * part / parts * NOISE_LANES);
      to = std::min(slots, batches * (part + 1) / parts * NOISE_LANES);
    }
  };

  // records = the sum of what f(part, records) adds for every part, in the order of the parts.
  template <class F>
  void add_up(Array<double>& records, F f) {
    const int64_t size = int64_t(records.size());
    if (int(shares_.size()) < parts) shares_.resize(parts);
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
    for (int part = 0; part < parts; ++part) {
      Array<double>& to = part == 0 ? records : shares_[part];
      to.assign(size, 0.0);
      f(part, to.data());
    }
    for (int part = 1; part < parts; ++part) {
      const double* const from = shares_[part].data();
#pragma omp simd
      for (int64_t k = 0; k < size; ++k) records[k] += from[k];
    }
  }

  void solve(double tolerance) {
    const int64_t size = int64_t(v.size());
    const double *const mass = mass_.data(), *const inverse = inverse_.data(),
                 *const drag = drag_.data();
    double *const x = v.data(), *const residual = residual_.data(), *const search = search_.data();
    double square = 0, start = 0;
#pragma omp simd reduction(+ : square, start)
    for (int64_t k = 0; k < size; ++k) {
      search[k] = residual[k] = inverse[k] * force[k];
      square += force[k] * residual[k];
      start += mass[k] * x[k] * x[k];
    }
    const double goal = tolerance * tolerance * (start + square);
    for (int iteration = 0; square > goal; ++iteration) {
      if (iteration == 1000)
        throw std::runtime_error("friction: conjugate gradients did not reach their tolerance");
      add_drag();
      double curvature = 0, next = 0;
#pragma omp simd reduction(+ : curvature)
      for (int64_t k = 0; k < size; ++k) curvature += (mass[k] * search[k] + drag[k]) * search[k];
      const double length = square / curvature;
#pragma omp simd reduction(+ : next)
      for (int64_t k = 0; k < size; ++k) {
        x[k] += length * search[k];
        const double r = residual[k] - length * (search[k] + inverse[k] * drag[k]);
        residual[k] = r;
        next += mass[k] * r * r;
      }
      const double ratio = next / square;
      square = next;
#pragma omp simd
      for (int64_t k = 0; k < size; ++k) search[k] = residual[k] + ratio * search[k];
    }
  }

 private:
  struct Rubbed {
    int32_t component;  // of v
    double drag;        // dt/2 m times the bead's own friction
  };
  std::vector<Rubbed> rubbed_;
  Array<double> mass_, inverse_, drag_, residual_, search_;
  std::vector<Array<double>> shares_;

  void add_drag() {
    add_up(drag_, [&](int part, double* drag) {
      for (const Kind& kind : kinds) {
        const Share share(kind.i->size(), part, parts);
        const double* g = kind.geometry.data() + share.from * FIELDS;
        for (std::size_t k = share.from; k < share.to; k += W, g += FIELDS * W) {
          const int32_t *i = kind.i->data() + k, *j = kind.j->data() + k;
          V d[3], unit[3];
          difference(search_.data(), i, j, d);
          for (int c = 0; c < 3; ++c) unit[c] = load(g + c * W);
          const V across = load(g + 3 * W), along = load(g + 4 * W) * dot(unit, d);
          for (int c = 0; c < 3; ++c) d[c] = across * d[c] + along * unit[c];
          scatter(drag, i, j, d);
        }
      }
    });
  }
};

}  // namespace pairs

// What the adjoint needs to know of a step's pairs.
struct PairStep {
  struct Kind {
    std::vector<int32_t> i, j;
    std::vector<int32_t> before;  // slot in the step before, or -1
    Array<double> mean;           // sigma in the middle of the step, fields 3 k + c
  };
  std::vector<Kind> kinds;
};

// The friction of one system along its trajectory, with the auxiliary variables of its pairs.
class PairFriction {
 public:
  int threads = 1;
  bool with_moment = false;
  // Of steps with_moment: sum of r_a p_b over pairs, r = x_i - x_j and p the momentum that friction
  // and noise gave to i.
  double moment[9] = {};

  PairFriction(const PairTables& tables, int64_t n, const int64_t* types, const double* masses,
               double skin)
      : tables_(&tables), types_(types, types + n),
        list_(tables.shape.r_cut, 0, skin, 1), kinds_(tables.shape.kinds()) {
    for (int64_t i = 0; i < n; ++i) inverse_masses_.push_back(1 / masses[i]);
    solver_.resize(tables.shape, n, types, masses);
    solver_.kinds.resize(kinds_.size());
  }

  // The friction's part of step t: positions are those in its middle.
  void step(int64_t t, const PairNoise& noise, Positions x, const Box& box, double* velocities,
            int64_t bead_stride, int64_t axis_stride) {
    find_pairs(t, noise, x, box);
    const int64_t n = int64_t(types_.size());
    auto at = [&](int64_t i, int c) -> double& {
      return velocities[i * bead_stride + c * axis_stride];
    };
    for (int64_t i = 0; i < n; ++i)
      for (int c = 0; c < 3; ++c) solver_.v[4 * i + c] = at(i, c);
    for (std::size_t k = 0; k < kinds_.size(); ++k) {
      pairs::Solver::Kind& to = solver_.kinds[k];
      to.i = &kinds_[k].i, to.j = &kinds_[k].j;
      to.geometry.resize(kinds_[k].i.size() * pairs::Solver::FIELDS);
    }
#ifdef _OPENMP
    // Below this a thread costs more than it brings.
    solver_.parts = int(std::max<int64_t>(1, std::min<int64_t>(threads, n / 512)));
#endif
    const int parts = solver_.parts;
    if (with_moment) moments_.assign(parts, Moment()), change_ = solver_.v;
    pairs::with_extra(tables_->shape.extra, [&](auto extra) {
      constexpr int K = decltype(extra)::value;
      solver_.add_up(solver_.force, [&](int part, double* force) {
        if (part == 0) solver_.rub(force), solver_.jostle(t, noise, tables_->shape.kT, force);
        for (int k = 0; k < int(kinds_.size()); ++k)
          advance<K, false>(t, noise, k, {kinds_[k].i.size(), part, parts}, force, nullptr, part);
      });
      solver_.solve(tables_->shape.tolerance);
      if (with_moment) add_moments();
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
      for (int part = 0; part < parts; ++part)
        for (int k = 0; k < int(kinds_.size()); ++k)
          respond<K>(k, {kinds_[k].i.size(), part, parts});
    });
    for (int64_t i = 0; i < n; ++i)
      for (int c = 0; c < 3; ++c) at(i, c) = 2 * solver_.v[4 * i + c] - at(i, c);
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
      const int32_t slot = take(kind, i, j);
      for (int c = 0; c < 3 * extra(); ++c)
        sigma(kind, slot)[c * W] = auxiliary[p * 3 * extra() + c];
    }
  }

  // The same where the velocities' mean over the step is known; what the adjoint wants is kept.
  void replay(int64_t t, const PairNoise& noise, Positions x, const Box& box, Positions mean,
              PairStep& kept) {
    for (Kind& kind : kinds_) {
      kind.before.resize(kind.i.size());
      std::iota(kind.before.begin(), kind.before.end(), 0);
    }
    find_pairs(t, noise, x, box);
    for (int64_t i = 0; i < int64_t(types_.size()); ++i)
      for (int c = 0; c < 3; ++c) solver_.v[4 * i + c] = mean(i, c);
    kept.kinds.resize(kinds_.size());
    pairs::with_extra(tables_->shape.extra, [&](auto extra) {
      for (int k = 0; k < int(kinds_.size()); ++k) {
        PairStep::Kind& to = kept.kinds[k];
        to.i = kinds_[k].i, to.j = kinds_[k].j, to.before = kinds_[k].before;
        to.mean.resize(kinds_[k].sigma.size());
        advance<decltype(extra)::value, true>(t, noise, k, {to.i.size(), 0, 1}, nullptr,
                                              to.mean.data(), 0);
      }
    });
  }

 private:
  using V = pairs::V;
  static constexpr int W = pairs::W;
  static constexpr int32_t NEAR_PACKS = 16;
  static constexpr int64_t TIDY = 16;  // lists

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
  std::vector<double> inverse_masses_;
  Neighbors list_;
  std::vector<Kind> kinds_;
  pairs::Solver solver_;
  Box box_;
  Array<double> x_;
  Array<float> listed_x_;
  int64_t builds_ = 0, lists_ = 0;  // lists since others wrote the pairs
  std::vector<int32_t> come_, place_, start_, second_, slot_, mark_;

  // Of half of a step's momentum, which is twice what the solver's equations have.
  struct Moment {
    Total<double> sums[9];
    // d from i to j, g on i.
    CGADV_INLINE void add(const V* d, const V* g) {
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) sums[3 * a + b].add(-d[a] * g[b]);
    }
  };
  std::vector<Moment> moments_;  // by part
  Array<double> change_;         // of the solver's v from start to solution

  int extra() const { return tables_->shape.extra; }
  double* sigma(Kind& kind, int32_t slot) const {
    return kind.sigma.data() + std::size_t(slot / W) * 3 * extra() * W + slot % W;
  }
  const double* sigma(const Kind& kind, int32_t slot) const {
    return kind.sigma.data() + std::size_t(slot / W) * 3 * extra() * W + slot % W;
  }

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

  // A slot for a pair that has come; there must be one.
  int32_t take(Kind& kind, int32_t a, int32_t b) const {
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
      const int32_t slot = kind.slot[m] = take(to, kind.i[from], kind.j[from]);
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
      m = kind.slot[m] = take(kind, list_.order[kind.place_i[m]], list_.order[kind.place_j[m]]);
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

  // Forward: what the solver wants, and what sigma becomes but for the velocities' share. Replay:
  // sigma, with the velocities' mean known.
  template <int K, bool REPLAY>
  void advance(int64_t t, const PairNoise& noise, int number, pairs::Solver::Share share,
               double* force, double* kept, int part) {
    Kind& kind = kinds_[number];
    const PairFrictionShape& s = tables_->shape;
    const PackBox<double> box(box_);
    const double h = 0.5 * s.dt, thermal = std::sqrt(0.5 * s.kT * s.dt);
    const double *const C = tables_->inverse.data() + number * K * K,
                 *const root = tables_->root.data() + number * K;
    float g[3 * K + 7][NOISE_LANES];
    for (std::size_t start = share.from; start < share.to; start += NOISE_LANES) {
      const int m = int(std::min<std::size_t>(NOISE_LANES, share.to - start));
      noise.fill(t, m, &kind.i[start], &kind.j[start], false, 3 * K + 3, g);
      for (int k = 0; k < m; k += W) {
        const int32_t *i = &kind.i[start + k], *j = &kind.j[start + k];
        double* const sigma = kind.sigma.data() + (start + k) * 3 * K;
        pairs::Place<K> at;
        at.template find<false>(*tables_, number, box, x_.data(), i, j);
        const V spread = sqrt(at.inverse_mass) * thermal, push_size = at.mass * spread;
        V kicked[K + 1][3], q[K + 1][3];
        for (int a = 0; a < K; ++a)
          for (int c = 0; c < 3; ++c)
            kicked[a][c] = load(sigma + (3 * a + c) * W) +
                           spread * root[a] * pairs::widen(&g[3 * a + 3 + c][k]);
        for (int a = 0; a < K; ++a)
          for (int c = 0; c < 3; ++c) {
            q[a][c] = V{};
            for (int b = 0; b < K; ++b) q[a][c] += kicked[b][c] * C[a * K + b];
          }
        V u[3], response[K + 1][2];
        pairs::difference(solver_.v.data(), i, j, u);
        at.respond(C, K, 1, response);
        if (REPLAY) {
          const V along = pairs::dot(u, at.unit);
          for (int a = 0; a < K; ++a) {
            const V across = response[a][1], excess = (response[a][0] - across) * along;
            for (int c = 0; c < 3; ++c) {
              const V middle = q[a][c] + (across * u[c] + excess * at.unit[c]) * h;
              store<double>(kept + ((start + k) * 3 * K) + (3 * a + c) * W, middle);
              store<double>(sigma + (3 * a + c) * W, 2.0 * middle - load(sigma + (3 * a + c) * W));
            }
          }
          continue;
        }
        V xi[3], push[3] = {};
        for (int c = 0; c < 3; ++c) xi[c] = pairs::widen(&g[c][k]);
        const V along = (at.f[0] - at.f[1]) * pairs::dot(at.unit, xi);
        at.couple(q, push);
        for (int c = 0; c < 3; ++c)
          push[c] = push_size * (at.f[1] * xi[c] + along * at.unit[c]) -
                    at.mass * h * push[c];
        double* const geometry = solver_.kinds[number].geometry.data();
        at.drag(response, h, geometry + (start + k) * pairs::Solver::FIELDS, u, push);
        pairs::scatter(force, i, j, push);
        if (with_moment) {
          const V r = at.inverse > V{} ? broadcast(1.0) / at.inverse : V{};
          V d[3];
          for (int c = 0; c < 3; ++c) d[c] = r * at.unit[c];
          moments_[part].add(d, push);
        }
        for (int a = 0; a < K; ++a) {
          double* const to = kind.response.data() + (start + k) * 2 * K + 2 * a * W;
          store<double>(to, response[a][1] * s.dt);
          store<double>(to + W, (response[a][0] - response[a][1]) * s.dt);
          for (int c = 0; c < 3; ++c)
            store<double>(sigma + (3 * a + c) * W, 2.0 * q[a][c] - load(sigma + (3 * a + c) * W));
        }
      }
    }
  }

  // What a pair hands over was counted with the drag of the velocities that the solver began with:
  // the rest is the drag of their change.
  void add_moments() {
    const int parts = solver_.parts;
    const PackBox<double> box(box_);
    for (std::size_t k = 0; k < change_.size(); ++k) change_[k] = solver_.v[k] - change_[k];
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
    for (int part = 0; part < parts; ++part)
      for (const pairs::Solver::Kind& kind : solver_.kinds) {
        const pairs::Solver::Share share(kind.i->size(), part, parts);
        const double* g = kind.geometry.data() + share.from * pairs::Solver::FIELDS;
        for (std::size_t k = share.from; k < share.to; k += W, g += pairs::Solver::FIELDS * W) {
          const int32_t *i = kind.i->data() + k, *j = kind.j->data() + k;
          V d[3], u[3], unit[3], push[3];
          pairs::difference(x_.data(), j, i, d);
          box.nearest(d[0], d[1], d[2], [](V v) { return v; });
          pairs::difference(change_.data(), i, j, u);
          for (int c = 0; c < 3; ++c) unit[c] = load(g + c * W);
          const V across = load(g + 3 * W), along = load(g + 4 * W) * pairs::dot(unit, u);
          for (int c = 0; c < 3; ++c) push[c] = -(across * u[c] + along * unit[c]);
          moments_[part].add(d, push);
        }
      }
    for (const Moment& of_part : moments_)
      for (int k = 0; k < 9; ++k) moment[k] += 2 * of_part.sums[k].value();
  }

  template <int K>
  void respond(int number, pairs::Solver::Share share) {
    if (K == 0) return;
    Kind& kind = kinds_[number];
    const double* g = solver_.kinds[number].geometry.data() + share.from * pairs::Solver::FIELDS;
    for (std::size_t k = share.from; k < share.to; k += W, g += pairs::Solver::FIELDS * W) {
      V u[3], unit[3];
      pairs::difference(solver_.v.data(), &kind.i[k], &kind.j[k], u);
      for (int c = 0; c < 3; ++c) unit[c] = load(g + c * W);
      const V along = pairs::dot(u, unit);
      for (int a = 0; a < K; ++a) {
        const double* const response = kind.response.data() + k * 2 * K + 2 * a * W;
        const V across = load(response), excess = load(response + W) * along;
        double* const sigma = kind.sigma.data() + k * 3 * K + 3 * a * W;
        for (int c = 0; c < 3; ++c)
          store<double>(sigma + c * W, load(sigma + c * W) + across * u[c] + excess * unit[c]);
      }
    }
  }
};

// The adjoint, from the last step to the first.
class PairFrictionAdjoint {
 public:
  PairFrictionAdjoint(const PairTables& tables, int64_t n, const int64_t* types,
                      const double* masses)
      : tables_(tables), n_(n), masses_(masses),
        moments_(tables.table.size(), 0.0), memory_(tables.inverse.size(), 0.0) {
    solver_.resize(tables.shape, n, types, masses);
    solver_.kinds.resize(tables.shape.kinds());
    x_.resize(4 * n), mean_.assign(4 * n, 0.0), d_x_.resize(4 * n);
    later_.resize(tables.shape.kinds());
  }

  // velocities [3,n]: in, the loss's gradient to those after the friction; out, before. positions
  // [3,n] (added): to the positions in the middle, which are x.
  void step(int64_t t, const PairNoise& noise, const PairStep& kept, Positions x, const Box& box,
            Positions mean, double* velocities, double* positions) {
    box_ = box;
    for (int64_t i = 0; i < n_; ++i) {
      for (int c = 0; c < 3; ++c) {
        x_[4 * i + c] = x(i, c), mean_[4 * i + c] = mean(i, c);
        solver_.v[4 * i + c] = 2 * velocities[c * n_ + i] / masses_[i];
      }
      x_[4 * i + 3] = 1 / masses_[i];
    }
    std::fill(solver_.force.begin(), solver_.force.end(), 0.0);
    solver_.rub(solver_.force.data());
    std::fill(d_x_.begin(), d_x_.end(), 0.0);
    pairs::with_extra(tables_.shape.extra, [&](auto extra) {
      constexpr int K = decltype(extra)::value;
      for (int k = 0; k < int(kept.kinds.size()); ++k) {
        receive<K>(kept.kinds[k], later_[k]);
        begin<K>(k, kept.kinds[k]);
      }
      solver_.solve(tables_.shape.tolerance);
      for (int k = 0; k < int(kept.kinds.size()); ++k) finish<K>(t, noise, k, kept.kinds[k]);
    });
    for (int64_t i = 0; i < n_; ++i)
      for (int c = 0; c < 3; ++c) {
        double& at = velocities[c * n_ + i];
        at = masses_[i] * solver_.v[4 * i + c] - at;
        positions[c * n_ + i] += d_x_[4 * i + c];
      }
  }

  // Adds the gradients of all steps.
  void give(double* d_splines, double* d_memory) const {
    const PairFrictionShape& s = tables_.shape;
    for (int f = 0; f < s.kinds() * s.functions(); ++f)
      spline_rows(s.n_basis, [&](int row, int d, int k, double w) {
        d_splines[f * s.n_basis + k] += w * moments_[(f * s.rows() + row) * 4 + d];
      });
    for (std::size_t k = 0; k < memory_.size(); ++k) d_memory[k] += memory_[k];
  }

 private:
  using V = pairs::V;
  static constexpr int W = pairs::W;

  // Of the step after: adjoint of sigma before the friction, over mu, and the slots it belongs to.
  struct Later {
    std::vector<int32_t> before;
    Array<double> sigma, bare;  // of this step: 2 lambda after the memory's own decay
  };

  const PairTables& tables_;
  int64_t n_;
  const double* masses_;
  pairs::Solver solver_;
  Box box_;
  Array<double> x_, mean_, d_x_;
  Array<double> moments_;
  std::vector<double> memory_;
  std::vector<Later> later_;

  template <int K>
  void receive(const PairStep::Kind& kind, Later& later) {
    Array<double> sigma(kind.i.size() * 3 * K, 0.0);
    for (std::size_t s = 0; s < later.before.size(); ++s) {
      const int32_t b = later.before[s];
      if (b < 0) continue;
      for (int c = 0; c < 3 * K; ++c)
        sigma[(b / W * 3 * K + c) * W + b % W] = later.sigma[(s / W * 3 * K + c) * W + s % W];
    }
    later.sigma.swap(sigma);
    later.before = kind.before;
    later.bare.resize(later.sigma.size());
  }

  template <int K>
  void begin(int number, const PairStep::Kind& kind) {
    const PackBox<double> box(box_);
    const double h = 0.5 * tables_.shape.dt;
    const double* const C = tables_.inverse.data() + number * K * K;
    pairs::Solver::Kind& to = solver_.kinds[number];
    to.i = &kind.i, to.j = &kind.j;
    to.geometry.resize(kind.i.size() * pairs::Solver::FIELDS);
    for (std::size_t k = 0; k < kind.i.size(); k += W) {
      pairs::Place<K> at;
      at.template find<false>(tables_, number, box, x_.data(), &kind.i[k], &kind.j[k]);
      const double* const lambda = later_[number].sigma.data() + k * 3 * K;
      double* const bare = later_[number].bare.data() + k * 3 * K;
      V y[K + 1][3], push[3] = {};
      for (int a = 0; a < K; ++a)
        for (int c = 0; c < 3; ++c) {
          y[a][c] = V{};
          for (int b = 0; b < K; ++b)
            y[a][c] += load(lambda + (3 * b + c) * W) * (2 * C[b * K + a]);
          store<double>(bare + (3 * a + c) * W, y[a][c]);
        }
      at.couple(y, push);
      for (int c = 0; c < 3; ++c) push[c] *= at.mass * h;
      V u[3], response[K + 1][2];
      pairs::difference(solver_.v.data(), &kind.i[k], &kind.j[k], u);
      at.respond(C, K, 1, response);
      at.drag(response, h, &to.geometry[k * pairs::Solver::FIELDS], u, push);
      pairs::scatter(solver_.force.data(), &kind.i[k], &kind.j[k], push);
    }
  }

  // With eta the solution, the loss changes with the parameters as
  //   sum mu [-h eta.(T_0^2 u + sum T_k s_k) + h eta_k.(T_k u - sum A_kl s_l)] + eta.N/2
  // does, where u and s are means over the step.
  template <int K>
  void finish(int64_t t, const PairNoise& noise, int number, const PairStep::Kind& kind) {
    const PairFrictionShape& s = tables_.shape;
    const PackBox<double> box(box_);
    const double h = 0.5 * s.dt, thermal = std::sqrt(0.5 * s.kT * s.dt);
    const double *const C = tables_.inverse.data() + number * K * K,
                 *const root = tables_.root.data() + number * K;
    const std::size_t slots = kind.i.size();
    V d_memory[K * K + 1] = {};
    float g[3 * K + 7][NOISE_LANES];
    for (std::size_t start = 0; start < slots; start += NOISE_LANES) {
      const int m = int(std::min<std::size_t>(NOISE_LANES, slots - start));
      noise.fill(t, m, &kind.i[start], &kind.j[start], false, 3 * K + 3, g);
      for (int k = 0; k < m; k += W) {
        const int32_t *i = &kind.i[start + k], *j = &kind.j[start + k];
        pairs::Place<K> at;
        at.template find<true>(tables_, number, box, x_.data(), i, j);
        double* const lambda = later_[number].sigma.data() + (start + k) * 3 * K;
        const double *const bare = later_[number].bare.data() + (start + k) * 3 * K,
                     *const mean = kind.mean.data() + (start + k) * 3 * K;
        const V kick = sqrt(at.mass) * thermal, scale = at.mass * h;
        V eta[3], u[3], xi[3];
        pairs::difference(solver_.v.data(), i, j, eta);
        pairs::difference(mean_.data(), i, j, u);
        for (int c = 0; c < 3; ++c) xi[c] = pairs::widen(&g[c][k]);
        const V eta_along = pairs::dot(eta, at.unit), u_along = pairs::dot(u, at.unit),
                xi_along = pairs::dot(xi, at.unit);
        // Gradients to f_k along and across; y goes with eta, z with u in what turns the pair.
        V d_f[2 * K + 2], y[3], z[3] = {};
        const V instant = scale * 2.0 * eta_along * u_along, noisy = kick * eta_along * xi_along;
        d_f[0] = noisy - instant * at.f[0];
        d_f[1] = kick * pairs::dot(eta, xi) - noisy -
                 (scale * 2.0 * pairs::dot(eta, u) - instant) * at.f[1];
        for (int c = 0; c < 3; ++c)
          y[c] = (at.f[0] - at.f[1]) * (kick * xi[c] - scale * (at.f[0] + at.f[1]) * u[c]);
        V middle[K + 1][3], hat[K + 1][3], response[K + 1][2];
        at.respond(C, 1, K, response);
        for (int a = 0; a < K; ++a) {
          const V across = response[a][1], excess = (response[a][0] - across) * eta_along;
          for (int c = 0; c < 3; ++c) {
            middle[a][c] = load(mean + (3 * a + c) * W);
            hat[a][c] = load(bare + (3 * a + c) * W) - (across * eta[c] + excess * at.unit[c]) * h;
            double* const to = lambda + (3 * a + c) * W;
            store<double>(to, hat[a][c] - load(to));
          }
          const V along = scale * (pairs::dot(hat[a], at.unit) * u_along -
                                   pairs::dot(middle[a], at.unit) * eta_along);
          d_f[2 * a + 2] = along;
          d_f[2 * a + 3] = scale * (pairs::dot(hat[a], u) - pairs::dot(middle[a], eta)) - along;
          const V turn = scale * (at.f[2 * a + 2] - at.f[2 * a + 3]);
          V drive{};
          for (int c = 0; c < 3; ++c) {
            y[c] -= turn * middle[a][c];
            z[c] += turn * hat[a][c];
            drive += hat[a][c] * pairs::widen(&g[3 * a + 3 + c][k]);
          }
          d_memory[a * K + a] += kick * drive * (0.5 / root[a]);
        }
        for (int a = 0; a < K; ++a)
          for (int b = 0; b < K; ++b) d_memory[a * K + b] -= scale * pairs::dot(hat[a], middle[b]);

        V radial{};
        int32_t rows[W];
        __builtin_memcpy(rows, &at.row, sizeof rows);
        for (int f = 0; f < 2 * K + 2; ++f) {
          radial += d_f[f] * at.slope[f];
          const V t2 = at.t * at.t;
          const V weights[4] = {d_f[f], d_f[f] * at.t, d_f[f] * t2, d_f[f] * t2 * at.t};
          add4(&moments_[(number * (2 * K + 2) + f) * s.rows() * 4], rows, weights);
        }
        const V y_along = pairs::dot(y, at.unit), z_along = pairs::dot(z, at.unit);
        V out[3];
        for (int c = 0; c < 3; ++c)
          out[c] = -radial * at.unit[c] -
                   at.inverse * (y_along * (eta[c] - eta_along * at.unit[c]) +
                                 eta_along * (y[c] - y_along * at.unit[c]) +
                                 z_along * (u[c] - u_along * at.unit[c]) +
                                 u_along * (z[c] - z_along * at.unit[c]));
        pairs::scatter(d_x_.data(), i, j, out);
      }
    }
    for (int k = 0; k < K * K; ++k) memory_[number * K * K + k] += sum<double>(d_memory[k]);
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
