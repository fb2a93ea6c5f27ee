// The adjoint of a step of pairwise friction with memory.
#pragma once

#include "step.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

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
    solver_.apply_friction(solver_.force.data());
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
  void add_gradients(double* d_splines, double* d_memory) const {
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
