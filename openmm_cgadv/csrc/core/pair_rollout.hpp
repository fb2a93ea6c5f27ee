// Trajectories of one replica with pairwise friction (pair_step.hpp), and their adjoint.
//
// As in rollout.hpp the adjoint forgets the feedback part, by halves: after the friction, and after
// the forces.
//
// Positions at every half step are kept, 6 n numbers a step; the mean velocity of a step is its
// displacement over dt. The pairs' auxiliary variables are not kept but found again by replaying
// the friction with known velocities, which needs neither forces nor a solver. The backward pass
// holds 3 K + 2 numbers a pair and step for as many steps at a time as fit into replay_bytes, and
// for no fewer than the square root of their number.
#pragma once

#include "friction/adjoint.hpp"
#include "pair_step.hpp"
#include "potential.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

struct PairRolloutShape {
  int64_t n;
  const int64_t* frames;
  int64_t n_frames;
  double forget;
  int64_t seed;
  int64_t replay_bytes = int64_t(256) << 20;  // of what the backward pass finds again
  int64_t steps() const { return n_frames ? frames[n_frames - 1] : 0; }
};

template <class T>
class PairRollout {
 public:
  PairRollout(const Potential<T>& potential, const PairTables& friction,
              const PairRolloutShape& shape, const int64_t* types, const double* masses,
              const double* box, int64_t replica, int threads)
      : friction_(friction), shape_(shape), types_(types),
        masses_(masses), evaluator_(potential, SKIN), box_(box), noise_(shape.seed, replica),
        replica_(replica) {
    evaluator_.threads = threads;
    force_.resize(3 * shape.n);
  }

  // positions, velocities [n,3]; frames [F,n,3]; kept (or null) [2 steps + 1,3,n].
  void forward(const double* positions, const double* velocities, double* frames,
               double* final_positions, double* final_velocities, double* kept) {
    const int64_t n = shape_.n, steps = shape_.steps();
    const double dt = friction_.shape.dt;
    std::vector<double> x(3 * n), v(3 * n), before(3 * n);
    PairFriction friction(friction_, n, types_, masses_, SKIN);
    friction.threads = evaluator_.threads;
    load(positions, x.data());
    load(velocities, v.data());
    int64_t frame = 0;
    for (int64_t t = 0;; ++t) {
      if (frame < shape_.n_frames && shape_.frames[frame] == t)
        store(x.data(), frames + frame++ * 3 * n);
      if (kept) kept = std::copy(x.begin(), x.end(), kept);
      if (t == steps) break;
      evaluator_.set_positions(n, {x.data(), 1, n}, types_, box_);
      evaluator_.run(Mode::energy);
      evaluator_.forces(force_.data());
      if (!pair_step(friction, t, noise_, box_, dt, n, masses_, force_.data(), x.data(), v.data(),
                     before.data(), kept))
        throw_explosion(t, steps, replica_, n, 0.5 * dt, before.data(), v.data(), force_.data(),
                          nullptr);
      if (kept) kept += 3 * n;
    }
    store(x.data(), final_positions);
    store(v.data(), final_velocities);
  }

  // Gradients with respect to the initial positions and velocities, theta, the splines and the
  // memory of the friction (the last three added).
  void backward(const double* kept, const double* d_frames, const double* d_final_positions,
                const double* d_final_velocities, double* d_positions, double* d_velocities,
                double* d_theta, double* d_splines, double* d_memory) {
    const int64_t n = shape_.n, steps = shape_.steps();
    const double dt = friction_.shape.dt, h = 0.5 * dt, memory = std::exp(-h / shape_.forget);
    std::vector<double> direct(3 * n), mu(3 * n, 0.0), l(3 * n), handed(3 * n), mean(3 * n);
    load(d_final_positions, direct.data());
    load(d_final_velocities, l.data());
    int64_t frame = shape_.n_frames - 1;
    auto add_frame = [&](int64_t t) {
      if (frame < 0 || shape_.frames[frame] != t) return;
      load(d_frames + frame-- * 3 * n, handed.data());
      for (int64_t i = 0; i < 3 * n; ++i) direct[i] += handed[i];
    };
    auto middle = [&](int64_t t) { return Positions{kept + (2 * t + 1) * 3 * n, 1, n}; };
    auto velocity = [&](int64_t t) {
      const double* const x = kept + 2 * t * 3 * n;
      for (int64_t i = 0; i < 3 * n; ++i) mean[i] = (x[6 * n + i] - x[i]) / dt;
      return Positions{mean.data(), 1, n};
    };

    // Where each stretch of replayed steps begins.
    std::vector<PairFriction> starts{PairFriction(friction_, n, types_, masses_, SKIN)};
    std::vector<PairStep> replayed(1);
    int64_t stretch = 1;
    if (steps > 0) {
      PairFriction first = starts[0];
      first.replay(0, noise_, middle(0), box_, velocity(0), replayed[0]);
      int64_t bytes = 1;
      for (const auto& kind : replayed[0].kinds)
        bytes += int64_t(kind.i.size()) * 12 + int64_t(kind.mean.size()) * 8;
      const int64_t root = int64_t(std::ceil(std::sqrt(double(steps))));
      stretch = std::min(steps, std::max(root, shape_.replay_bytes / bytes));
    }
    for (int64_t t = 0; t < (steps - 1) / stretch * stretch; ++t) {
      if (t % stretch == 0) starts.push_back(starts.back());
      starts.back().replay(t, noise_, middle(t), box_, velocity(t), replayed[0]);
    }
    replayed.resize(stretch);

    PairFrictionAdjoint adjoint(friction_, n, types_, masses_);
    add_frame(steps);
    for (int64_t t = steps - 1; t >= 0; --t) {
      if (t == steps - 1 || t % stretch == stretch - 1) {
        const int64_t begin = t / stretch * stretch;
        for (int64_t k = begin; k <= t; ++k)
          starts[begin / stretch].replay(k, noise_, middle(k), box_, velocity(k),
                                         replayed[k - begin]);
      }
      for (int64_t i = 0; i < 3 * n; ++i) l[i] += h * (direct[i] + mu[i]);
      adjoint.step(t, noise_, replayed[t % stretch], middle(t), box_, velocity(t), l.data(),
                   mu.data());
      for (int c = 0; c < 3; ++c)
        for (int64_t i = 0; i < n; ++i) {
          const int64_t k = c * n + i;
          mu[k] *= memory;
          l[k] += h * (direct[k] + mu[k]);
          handed[k] = dt / masses_[i] * l[k];
        }
      evaluator_.set_positions(n, {kept + 2 * t * 3 * n, 1, n}, types_, box_);
      evaluator_.set_direction({handed.data(), 1, n});
      evaluator_.run(Mode::hessian_and_moments);
      evaluator_.forces(force_.data());
      for (int64_t i = 0; i < 3 * n; ++i) mu[i] = memory * (mu[i] + force_[i]);
      add_frame(t);
    }
    for (int64_t i = 0; i < 3 * n; ++i) direct[i] += mu[i];
    store(direct.data(), d_positions);
    store(l.data(), d_velocities);
    evaluator_.add_parameter_gradient(-1, d_theta);
    adjoint.add_gradients(d_splines, d_memory);
  }

 private:
  static constexpr double SKIN = 0.08;
  const PairTables& friction_;
  PairRolloutShape shape_;
  const int64_t* types_;
  const double* masses_;
  Evaluator<T> evaluator_;
  Box box_;
  PairNoise noise_;
  int64_t replica_;
  std::vector<double> force_;

  void load(const double* from, double* to) const {
    for (int64_t i = 0; i < shape_.n; ++i)
      for (int c = 0; c < 3; ++c) to[c * shape_.n + i] = from[3 * i + c];
  }
  void store(const double* from, double* to) const {
    for (int64_t i = 0; i < shape_.n; ++i)
      for (int c = 0; c < 3; ++c) to[3 * i + c] = from[c * shape_.n + i];
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
