// The linear equations of a step of pairwise friction, solved by conjugate gradients.
#pragma once

#include "place.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

namespace pairs {

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
        for (int c = 0; c < 3; ++c) dragged_.push_back({int32_t(4 * i + c), drag});
      for (int c = 0; c < 3; ++c)
        mass_[4 * i + c] = masses[i] + drag, inverse_[4 * i + c] = 1 / (masses[i] + drag);
    }
    force.assign(4 * n, 0.0), v.assign(4 * n, 0.0);
    drag_.resize(4 * n), residual_.resize(4 * n), search_.resize(4 * n);
  }

  // Drag of each bead's own friction on v, off the force.
  void apply_friction(double* force) const {
    for (const Dragged& r : dragged_) force[r.component] -= r.drag * v[r.component];
  }

  // Noise of each bead's own friction, which a pair of a bead with itself has.
  void apply_noise(int64_t t, const PairNoise& noise, double kT, double* force) const {
    float g[4][NOISE_LANES];
    for (std::size_t start = 0; start < dragged_.size(); start += 3 * NOISE_LANES) {
      const int m = int(std::min<std::size_t>(NOISE_LANES, (dragged_.size() - start) / 3));
      int32_t beads[NOISE_LANES];
      for (int k = 0; k < m; ++k) beads[k] = dragged_[start + 3 * k].component / 4;
      noise.fill(t, m, beads, beads, false, 3, g);
      for (int k = 0; k < 3 * m; ++k) {
        const Dragged& r = dragged_[start + k];
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
        throw Explosion("friction: conjugate gradients did not reach their tolerance");
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
  struct Dragged {
    int32_t component;  // of v
    double drag;        // dt/2 m times the bead's own friction
  };
  std::vector<Dragged> dragged_;
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

}  // namespace CGADV_ISA
}  // namespace cgadv
