// Trajectories of one replica and their adjoint.
//
// State s = (v, z_1 .. z_K) per bead. A step of dt, with x the positions, F the forces:
//   v += dt F(x)/m;  x += dt/2 v;  s <- E s + sqrt(kT/m) S xi;  x += dt/2 v.
// The adjoint keeps a direct part (what the loss hands to the frames) and a feedback part mu (what
// comes back through the Hessian H of the energy), and forgets the latter:
//   mu <- exp(-dt/tau) (mu - H dt lambda_v/m).
// tau = infinity is the exact adjoint. Only positions before and states within each step are kept.
#pragma once

#include <cmath>

#include "explosion.hpp"
#include "potential.hpp"
#include "random.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

struct RolloutShape {
  int64_t n, extra;  // beads, auxiliary variables K
  int64_t steps() const { return n_frames ? frames[n_frames - 1] : 0; }
  const int64_t* frames;
  int64_t n_frames;
  double kT, dt, forget;
  int64_t seed;
  int64_t components() const { return 3 * (extra + 1); }
};

template <class T>
class Rollout {
 public:
  Rollout(const Potential<T>& potential, const RolloutShape& shape,
          const int64_t* types, const double* masses, const double* box, const double* E,
          const double* S, int64_t replica, int threads)
      : n_types_(potential.n_types), shape_(shape), evaluator_(potential, SKIN), box_(box), E_(E),
        S_(S), noise_(shape.seed, replica), replica_(replica) {
    // Beads sorted by type, so that each type's matrices act on a contiguous range.
    const int64_t n = shape.n;
    beads_.resize(n);
    std::iota(beads_.begin(), beads_.end(), 0);
    std::stable_sort(beads_.begin(), beads_.end(),
                     [&](int32_t a, int32_t b) { return types[a] < types[b]; });
    first_.assign(potential.n_types + 1, 0);
    for (int64_t i = 0; i < n; ++i) ++first_[types[i] + 1];
    std::partial_sum(first_.begin(), first_.end(), first_.begin());
    for (int64_t i = 0; i < n; ++i) {
      types_.push_back(types[beads_[i]]);
      masses_.push_back(masses[beads_[i]]);
      thermal_.push_back(std::sqrt(shape.kT / masses_[i]));
    }
    evaluator_.threads = threads;
    xi_.resize(shape.components() * n);
    force_.resize(3 * n);
  }

  // positions [n,3], state [n,K+1,3]; frames [F,n,3]; kept_* (or null) [steps, 3 or 3(K+1), n] in
  // this class's own order of beads.
  void forward(const double* positions, const double* state, double* frames,
               double* final_positions, double* final_state, double* kept_positions,
               double* kept_states) {
    const int64_t n = shape_.n, C = shape_.components(), T_ = shape_.steps();
    const double h = 0.5 * shape_.dt;
    std::vector<double> x(3 * n), s(C * n), next(C * n);
    load(positions, 3, x.data());
    load(state, C, s.data());
    int64_t frame = 0;
    for (int64_t t = 0;; ++t) {
      if (frame < shape_.n_frames && shape_.frames[frame] == t)
        store(x.data(), 3, frames + frame++ * 3 * n);
      if (t == T_) break;
      if (kept_positions) std::copy(x.begin(), x.end(), kept_positions + t * 3 * n);
      evaluator_.set_positions(n, {x.data(), 1, n}, types_.data(), box_);
      evaluator_.run(Mode::energy);
      evaluator_.forces(force_.data());
      for (int c = 0; c < 3; ++c)
        for (int64_t i = 0; i < n; ++i) {
          s[c * n + i] += shape_.dt / masses_[i] * force_[c * n + i];
          x[c * n + i] += h * s[c * n + i];
        }
      if (kept_states) std::copy(s.begin(), s.end(), kept_states + t * C * n);
      noise_.fill(t, n, beads_.data(), int(C), xi_.data());
      friction(s.data(), next.data());
      double largest = 0;
      for (int64_t i = 0; i < 3 * n; ++i) {
        const double d = h * next[i];
        x[i] += d;
        const double moved = std::abs(d + h * s[i]);
        raise_to(largest, moved);
      }
      if (!(largest <= EXPLODED))
        throw_explosion(t, T_, replica_, n, h, s.data(), next.data(), force_.data(),
                          beads_.data());
      s.swap(next);
    }
    store(x.data(), 3, final_positions);
    store(s.data(), C, final_state);
  }

  // Gradients with respect to the initial positions and states, theta (added), E and S (added).
  void backward(const double* kept_positions, const double* kept_states, const double* d_frames,
                const double* d_final_positions, const double* d_final_state, double* d_positions,
                double* d_state, double* d_theta, double* dE, double* dS) {
    const int64_t n = shape_.n, C = shape_.components(), T_ = shape_.steps();
    const double h = 0.5 * shape_.dt, memory = std::exp(-shape_.dt / shape_.forget);
    std::vector<double> direct(3 * n), mu(3 * n, 0.0), l(C * n), next(C * n), handed(3 * n);
    load(d_final_positions, 3, direct.data());
    load(d_final_state, C, l.data());
    int64_t frame = shape_.n_frames - 1;
    auto add_frame = [&](int64_t t) {
      if (frame < 0 || shape_.frames[frame] != t) return;
      load(d_frames + frame-- * 3 * n, 3, handed.data());
      for (int64_t i = 0; i < 3 * n; ++i) direct[i] += handed[i];
    };
    add_frame(T_);
    for (int64_t t = T_ - 1; t >= 0; --t) {
      for (int64_t i = 0; i < 3 * n; ++i) l[i] += h * (direct[i] + mu[i]);
      noise_.fill(t, n, beads_.data(), int(C), xi_.data());
      friction_adjoint(l.data(), next.data(), kept_states + t * C * n, dE, dS);
      l.swap(next);
      for (int c = 0; c < 3; ++c)
        for (int64_t i = 0; i < n; ++i) {
          l[c * n + i] += h * (direct[c * n + i] + mu[c * n + i]);
          handed[c * n + i] = shape_.dt / masses_[i] * l[c * n + i];
        }
      evaluator_.set_positions(n, {kept_positions + t * 3 * n, 1, n}, types_.data(), box_);
      evaluator_.set_direction({handed.data(), 1, n});
      evaluator_.run(Mode::hessian_and_moments);
      evaluator_.forces(force_.data());
      for (int64_t i = 0; i < 3 * n; ++i) mu[i] = memory * (mu[i] + force_[i]);
      add_frame(t);
    }
    for (int64_t i = 0; i < 3 * n; ++i) direct[i] += mu[i];
    store(direct.data(), 3, d_positions);
    store(l.data(), C, d_state);
    evaluator_.add_parameter_gradient(-1, d_theta);
  }

 private:
  static constexpr double SKIN = 0.08;
  int n_types_;
  RolloutShape shape_;
  Evaluator<T> evaluator_;
  Box box_;
  const double *E_, *S_;
  Noise noise_;
  int64_t replica_;
  std::vector<int32_t> beads_;
  std::vector<int64_t> types_, first_;
  std::vector<double> masses_, thermal_, xi_, force_;

  void load(const double* from, int64_t components, double* to) const {
    for (int64_t i = 0; i < shape_.n; ++i)
      for (int64_t c = 0; c < components; ++c)
        to[c * shape_.n + i] = from[beads_[i] * components + c];
  }
  void store(const double* from, int64_t components, double* to) const {
    for (int64_t i = 0; i < shape_.n; ++i)
      for (int64_t c = 0; c < components; ++c)
        to[beads_[i] * components + c] = from[c * shape_.n + i];
  }
  // next = E s + sqrt(kT/m) S xi; xi is left multiplied by sqrt(kT/m).
  void friction(const double* s, double* next) {
    const int64_t n = shape_.n, R = shape_.extra + 1;
    scale_noise();
    for (int64_t a = 0; a < n_types_; ++a)
      for (int64_t i = 0; i < R; ++i)
        for (int c = 0; c < 3; ++c) {
          double* to = next + (3 * i + c) * n;
          for (int64_t k = first_[a]; k < first_[a + 1]; ++k) to[k] = 0;
          for (int64_t j = 0; j < R; ++j) {
            const double e = E_[(a * R + i) * R + j], f = S_[(a * R + i) * R + j];
            const double *from = s + (3 * j + c) * n, *noise = &xi_[(3 * j + c) * n];
            for (int64_t k = first_[a]; k < first_[a + 1]; ++k)
              to[k] += e * from[k] + f * noise[k];
          }
        }
  }

  void scale_noise() {
    const int64_t n = shape_.n;
    for (int64_t c = 0; c < shape_.components(); ++c)
      for (int64_t i = 0; i < n; ++i) xi_[c * n + i] *= thermal_[i];
  }

  // next = E^T l; dE += l s^T, dS += l (sqrt(kT/m) xi)^T summed over a type's beads.
  void friction_adjoint(const double* l, double* next, const double* s, double* dE, double* dS) {
    const int64_t n = shape_.n, R = shape_.extra + 1;
    scale_noise();
    std::fill(next, next + 3 * R * n, 0.0);
    for (int64_t a = 0; a < n_types_; ++a)
      for (int64_t i = 0; i < R; ++i)
        for (int64_t j = 0; j < R; ++j) {
          const double e = E_[(a * R + i) * R + j];
          double de = 0, ds = 0;
          for (int c = 0; c < 3; ++c) {
            const double *from = l + (3 * i + c) * n, *state = s + (3 * j + c) * n,
                         *noise = &xi_[(3 * j + c) * n];
            double* to = next + (3 * j + c) * n;
#pragma omp simd reduction(+ : de, ds)
            for (int64_t k = first_[a]; k < first_[a + 1]; ++k) {
              to[k] += e * from[k];
              de += from[k] * state[k];
              ds += from[k] * noise[k];
            }
          }
          dE[(a * R + i) * R + j] += de;
          dS[(a * R + i) * R + j] += ds;
        }
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
