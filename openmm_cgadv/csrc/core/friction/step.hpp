// A step of pairwise friction with memory.
#pragma once

#include "slots.hpp"
#include "solver.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

// What the adjoint needs to know of a step's pairs.
struct PairStep {
  struct Kind {
    std::vector<int32_t> i, j;
    std::vector<int32_t> before;  // slot in the step before, or -1
    Array<double> mean;           // sigma in the middle of the step, fields 3 k + c
  };
  std::vector<Kind> kinds;
};

// The friction of one system along its trajectory: one step of it, and the same step again with its
// result known.
class PairFriction : public PairSlots {
 public:
  bool with_moment = false;
  // Of steps with_moment: sum of r_a p_b over pairs, r = x_i - x_j and p the momentum that friction
  // and noise gave to i.
  double moment[9] = {};

  PairFriction(const PairTables& tables, int64_t n, const int64_t* types, const double* masses,
               double skin)
      : PairSlots(tables, n, types, masses, skin) {
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
        if (part == 0) solver_.apply_friction(force), solver_.apply_noise(t, noise, tables_->shape.kT, force);
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

  pairs::Solver solver_;

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

}  // namespace CGADV_ISA
}  // namespace cgadv
