// One instruction set's build of the core.

#include "kernels.hpp"

#include <exception>
#include <memory>

#include "../core/langevin.hpp"
#include "../core/pair_rollout.hpp"
#include "../core/rollout.hpp"

namespace cgadv {

class SystemEvaluator {
 public:
  virtual ~SystemEvaluator() = default;
  virtual double evaluate(const double* theta, const double* positions, const double* box,
                          int threads, double factor, double* forces) = 0;
  virtual void forget() = 0;
};

inline namespace CGADV_ISA {
namespace {

constexpr double SKIN = 0.1;

template <class T>
Potential<T> unpack(const PotentialArgs& a) {
  return {a.ints, a.n_ints, a.floats, a.n_floats};
}

// With the parameters of replica b.
template <class T>
Potential<T> potential_of(const PotentialArgs& a, int64_t b = 0) {
  Potential<T> potential = unpack<T>(a);
  potential.set_parameters(a.theta + b * a.theta_stride);
  return potential;
}

void check_types(int n_types, int64_t n, const int64_t* types) {
  for (int64_t i = 0; i < n; ++i)
    if (types[i] < 0 || types[i] >= n_types)
      throw InvalidInput("bead " + std::to_string(i) + " has type " +
                               std::to_string(types[i]) + ", the potential knows types 0 to " +
                               std::to_string(n_types - 1));
}

// Runs f(b, threads) for every replica: replicas over threads when there are several, otherwise
// all threads to the one. The first replica's error is the one reported.
template <class F>
void each_replica(const SystemArgs& s, F f) {
  if (s.replicas == 1) return f(0, std::max(1, s.threads));
  std::vector<std::exception_ptr> errors(s.replicas);
#pragma omp parallel for schedule(dynamic, 1) num_threads(std::max(1, s.threads))
  for (int64_t b = 0; b < s.replicas; ++b) {
    try {
      f(b, 1);
    } catch (...) {
      errors[b] = std::current_exception();
    }
  }
  for (auto& e : errors)
    if (e) std::rethrow_exception(e);
}

template <class T>
void scatter(const Evaluator<T>& e, double factor, double* out) {
  for (int p = 0; p < e.list.size(); ++p)
    for (int c = 0; c < 3; ++c)
      out[3 * e.list.order[p] + c] = factor * double(e.gradient(p, c));
}

template <class T>
void value_in(const PotentialArgs& a, const SystemArgs& s, double* energy, double* gradient,
              double* d_theta) {
  const PackedPotential packed(a.ints, a.n_ints, a.floats, a.n_floats);
  check_types(packed.n_types, s.n, s.types);
  each_replica(s, [&](int64_t b, int threads) {
    const Potential<T> potential = potential_of<T>(a, b);
    const int64_t P = potential.n_parameters();
    Evaluator<T> e(potential, 0);
    e.threads = threads;
    e.set_positions(s.n, {s.positions + b * 3 * s.n, 3, 1}, s.types, Box(s.boxes + 9 * b));
    e.run(d_theta ? Mode::energy_and_moments : Mode::energy);
    if (energy) energy[b] = e.energy;
    if (gradient) scatter(e, 1, gradient + b * 3 * s.n);
    if (d_theta) {
      std::fill(d_theta + b * P, d_theta + (b + 1) * P, 0.0);
      e.add_parameter_gradient(1, d_theta + b * P);
    }
  });
}

template <class T>
class SystemEvaluatorIn final : public SystemEvaluator {
 public:
  SystemEvaluatorIn(const PotentialArgs& a, int64_t n, const int64_t* types, const int64_t* exclusions,
             int64_t n_exclusions)
      : potential_(unpack<T>(a)), types_(types, types + n), evaluator_(potential_, SKIN) {
    check_types(potential_.n_types, n, types);
    evaluator_.list.exclude(n, exclusions, n_exclusions);
  }
  double evaluate(const double* theta, const double* positions, const double* box, int threads,
                  double factor, double* forces) override {
    if (theta_.empty() || !std::equal(theta_.begin(), theta_.end(), theta)) {
      theta_.assign(theta, theta + potential_.n_parameters());
      potential_.set_parameters(theta);
    }
    evaluator_.threads = threads;
    evaluator_.set_positions(int64_t(types_.size()), {positions, 3, 1}, types_.data(), Box(box));
    evaluator_.run(Mode::energy);
    for (int p = 0; p < evaluator_.list.size(); ++p)
      for (int c = 0; c < 3; ++c)
        forces[3 * evaluator_.list.order[p] + c] -= factor * double(evaluator_.gradient(p, c));
    return evaluator_.energy;
  }
  void forget() override { evaluator_.list.forget(); }

 private:
  Potential<T> potential_;
  std::vector<int64_t> types_;
  std::vector<double> theta_;
  Evaluator<T> evaluator_;
};

SystemEvaluator* make_evaluator(const PotentialArgs& a, int64_t n, const int64_t* types,
                 const int64_t* exclusions, int64_t n_exclusions) {
  for (int64_t k = 0; k < 2 * n_exclusions; ++k)
    if (exclusions[k] < 0 || exclusions[k] >= n)
      throw InvalidInput("exclusion " + std::to_string(k / 2) + " names bead " +
                               std::to_string(exclusions[k]) + ", there are beads 0 to " +
                               std::to_string(n - 1));
  if (a.single_precision) return new SystemEvaluatorIn<float>(a, n, types, exclusions, n_exclusions);
  return new SystemEvaluatorIn<double>(a, n, types, exclusions, n_exclusions);
}

template <class T>
void hvp_in(const PotentialArgs& a, const SystemArgs& s, const double* direction, double* product,
            double* d_theta) {
  const PackedPotential packed(a.ints, a.n_ints, a.floats, a.n_floats);
  check_types(packed.n_types, s.n, s.types);
  each_replica(s, [&](int64_t b, int threads) {
    const Potential<T> potential = potential_of<T>(a, b);
    const int64_t P = potential.n_parameters();
    Evaluator<T> e(potential, 0);
    e.threads = threads;
    e.set_positions(s.n, {s.positions + b * 3 * s.n, 3, 1}, s.types, Box(s.boxes + 9 * b));
    e.set_direction({direction + b * 3 * s.n, 3, 1});
    e.run(Mode::hessian_and_moments);
    scatter(e, 1, product + b * 3 * s.n);
    std::fill(d_theta + b * P, d_theta + (b + 1) * P, 0.0);
    e.add_parameter_gradient(1, d_theta + b * P);
  });
}

template <class T>
void virial_in(const PotentialArgs& a, const SystemArgs& s, double* virial) {
  const Potential<T> potential = potential_of<T>(a);
  check_types(potential.n_types, s.n, s.types);
  Evaluator<T> e(potential, SKIN);
  e.threads = std::max(1, s.threads);
  e.with_virial = true;
  for (int64_t b = 0; b < s.replicas; ++b) {
    e.set_positions(s.n, {s.positions + b * 3 * s.n, 3, 1}, s.types, Box(s.boxes + 9 * b));
    e.run(Mode::energy);
    virial = std::copy(e.virial, e.virial + 9, virial);
  }
}

void basis_forces(const PotentialArgs& a, const SystemArgs& s, double* forces) {
  Potential<double> potential = unpack<double>(a);
  check_types(potential.n_types, s.n, s.types);
  potential.drop_fixed();
  const int64_t P = potential.n_parameters();
  std::vector<double> unit(P, 0.0);
  Evaluator<double> e(potential, 0);
  e.threads = s.threads;
  e.set_positions(s.n, {s.positions, 3, 1}, s.types, Box(s.boxes));
  for (int64_t k = 0; k < P; ++k) {
    unit[k] = 1;
    potential.set_parameters(unit.data());
    e.run(Mode::energy);
    scatter(e, -1, forces + k * 3 * s.n);
    unit[k] = 0;
  }
}

RolloutShape shape_of(const SystemArgs& s, const RolloutArgs& r) {
  RolloutShape shape;
  shape.n = s.n, shape.extra = r.extra, shape.frames = r.frames, shape.n_frames = r.n_frames;
  shape.kT = r.kT, shape.dt = r.dt, shape.forget = r.forget, shape.seed = r.seed;
  return shape;
}

template <class T>
void rollout_in(const PotentialArgs& a, const SystemArgs& s, const RolloutArgs& r,
                const double* state, double* frames, double* final_positions, double* final_state,
                double* kept_positions, double* kept_states) {
  const Potential<T> potential = potential_of<T>(a);
  check_types(potential.n_types, s.n, s.types);
  const RolloutShape shape = shape_of(s, r);
  const int64_t n3 = 3 * s.n, C = shape.components() * s.n, steps = shape.steps();
  each_replica(s, [&](int64_t b, int threads) {
    Rollout<T> rollout(potential, shape, s.types, r.masses, s.boxes + 9 * b, r.E, r.S, b,
                       threads);
    rollout.forward(s.positions + b * n3, state + b * C, frames + b * r.n_frames * n3,
                    final_positions + b * n3, final_state + b * C,
                    kept_positions ? kept_positions + b * steps * n3 : nullptr,
                    kept_states ? kept_states + b * steps * C : nullptr);
  });
}

template <class T>
void rollout_backward_in(const PotentialArgs& a, const SystemArgs& s, const RolloutArgs& r,
                         const double* kept_positions, const double* kept_states,
                         const double* d_frames, const double* d_final_positions,
                         const double* d_final_state, double* d_positions, double* d_state,
                         double* d_theta, double* dE, double* dS) {
  const Potential<T> potential = potential_of<T>(a);
  check_types(potential.n_types, s.n, s.types);
  const RolloutShape shape = shape_of(s, r);
  const int64_t n3 = 3 * s.n, C = shape.components() * s.n, steps = shape.steps();
  const int64_t P = potential.n_parameters(), R2 = (r.extra + 1) * (r.extra + 1) * potential.n_types;
  // Each replica's share apart, added up in order: the threads leave no trace.
  std::vector<double> shares(s.replicas * (P + 2 * R2), 0.0);
  each_replica(s, [&](int64_t b, int threads) {
    double* share = &shares[b * (P + 2 * R2)];
    Rollout<T> rollout(potential, shape, s.types, r.masses, s.boxes + 9 * b, r.E, r.S, b,
                       threads);
    rollout.backward(kept_positions + b * steps * n3, kept_states + b * steps * C,
                     d_frames + b * r.n_frames * n3, d_final_positions + b * n3,
                     d_final_state + b * C, d_positions + b * n3, d_state + b * C, share,
                     share + P, share + P + R2);
  });
  std::fill(d_theta, d_theta + P, 0.0);
  std::fill(dE, dE + R2, 0.0), std::fill(dS, dS + R2, 0.0);
  for (int64_t b = 0; b < s.replicas; ++b) {
    const double* share = &shares[b * (P + 2 * R2)];
    for (int64_t k = 0; k < P; ++k) d_theta[k] += share[k];
    for (int64_t k = 0; k < R2; ++k) dE[k] += share[P + k], dS[k] += share[P + R2 + k];
  }
}

PairFrictionShape friction_of(int n_types, const PairFrictionArgs& r) {
  PairFrictionShape shape;
  shape.n_types = n_types, shape.extra = int(r.extra), shape.n_basis = int(r.n_basis);
  shape.r_cut = r.r_cut, shape.r_min = r.r_min, shape.splines = r.splines;
  shape.memory = r.memory, shape.self = r.self;
  shape.kT = r.kT, shape.dt = r.dt, shape.tolerance = r.tolerance;
  return shape;
}

PairRolloutShape pair_shape_of(const SystemArgs& s, const PairRolloutArgs& r) {
  PairRolloutShape shape;
  shape.n = s.n, shape.frames = r.frames, shape.n_frames = r.n_frames;
  shape.forget = r.forget, shape.seed = r.seed;
  return shape;
}

template <class T>
void pair_rollout_in(const PotentialArgs& a, const SystemArgs& s, const PairRolloutArgs& r,
                     const double* velocities, double* frames, double* final_positions,
                     double* final_velocities, double* kept) {
  const Potential<T> potential = potential_of<T>(a);
  check_types(potential.n_types, s.n, s.types);
  const PairTables friction(friction_of(potential.n_types, r));
  const PairRolloutShape shape = pair_shape_of(s, r);
  const int64_t n3 = 3 * s.n, steps = shape.steps();
  each_replica(s, [&](int64_t b, int threads) {
    PairRollout<T> rollout(potential, friction, shape, s.types, r.masses, s.boxes + 9 * b, b,
                           threads);
    rollout.forward(s.positions + b * n3, velocities + b * n3, frames + b * r.n_frames * n3,
                    final_positions + b * n3, final_velocities + b * n3,
                    kept ? kept + b * (2 * steps + 1) * n3 : nullptr);
  });
}

template <class T>
void pair_rollout_backward_in(const PotentialArgs& a, const SystemArgs& s,
                              const PairRolloutArgs& r, const double* kept, const double* d_frames,
                              const double* d_final_positions, const double* d_final_velocities,
                              double* d_positions, double* d_velocities, double* d_theta,
                              double* d_splines, double* d_memory) {
  const Potential<T> potential = potential_of<T>(a);
  check_types(potential.n_types, s.n, s.types);
  const PairFrictionShape f = friction_of(potential.n_types, r);
  const PairTables friction(f);
  const PairRolloutShape shape = pair_shape_of(s, r);
  const int64_t n3 = 3 * s.n, steps = shape.steps(), P = potential.n_parameters(),
                F = int64_t(f.kinds()) * f.functions() * f.n_basis,
                M = int64_t(f.kinds()) * f.extra * f.extra;
  // Each replica's share apart, added up in order: the threads leave no trace.
  std::vector<double> shares(s.replicas * (P + F + M), 0.0);
  each_replica(s, [&](int64_t b, int threads) {
    double* share = &shares[b * (P + F + M)];
    PairRollout<T> rollout(potential, friction, shape, s.types, r.masses, s.boxes + 9 * b, b,
                           threads);
    rollout.backward(kept + b * (2 * steps + 1) * n3, d_frames + b * r.n_frames * n3,
                     d_final_positions + b * n3, d_final_velocities + b * n3, d_positions + b * n3,
                     d_velocities + b * n3, share, share + P, share + P + F);
  });
  std::fill(d_theta, d_theta + P, 0.0);
  std::fill(d_splines, d_splines + F, 0.0), std::fill(d_memory, d_memory + M, 0.0);
  for (int64_t b = 0; b < s.replicas; ++b) {
    const double* share = &shares[b * (P + F + M)];
    for (int64_t k = 0; k < P; ++k) d_theta[k] += share[k];
    for (int64_t k = 0; k < F; ++k) d_splines[k] += share[P + k];
    for (int64_t k = 0; k < M; ++k) d_memory[k] += share[P + F + k];
  }
}

#define CGADV_EITHER_PRECISION(name)                                       \
  template <class... A>                                                    \
  void name(const PotentialArgs& a, A... rest) {                           \
    a.single_precision ? name##_in<float>(a, rest...) : name##_in<double>(a, rest...); \
  }
CGADV_EITHER_PRECISION(value)
CGADV_EITHER_PRECISION(hvp)
CGADV_EITHER_PRECISION(virial)
CGADV_EITHER_PRECISION(rollout)
CGADV_EITHER_PRECISION(rollout_backward)
CGADV_EITHER_PRECISION(pair_rollout)
CGADV_EITHER_PRECISION(pair_rollout_backward)
#undef CGADV_EITHER_PRECISION

void noise(int64_t seed, int64_t replica, int64_t first_step, int64_t steps, int64_t n,
           int64_t components, double* out) {
  const Noise source(seed, replica);
  std::vector<int32_t> beads(n);
  std::iota(beads.begin(), beads.end(), 0);
  std::vector<double> by_component(n * components);
  for (int64_t t = 0; t < steps; ++t) {
    source.fill(first_step + t, n, beads.data(), int(components), by_component.data());
    for (int64_t i = 0; i < n; ++i)
      for (int64_t c = 0; c < components; ++c)
        out[(t * n + i) * components + c] = by_component[c * n + i];
  }
}

void pair_noise(int64_t seed, int64_t replica, int64_t step, int64_t pairs, const int64_t* beads,
                bool fresh, int64_t components, double* out) {
  const PairNoise source(seed, replica);
  if (components > 3 * (MAX_PAIR_EXTRA + 1))
    throw InvalidInput("noise of pairs has at most " + std::to_string(MAX_PAIR_EXTRA + 1) +
                             " vectors");
  float g[3 * MAX_PAIR_EXTRA + 7][NOISE_LANES];
  for (int64_t start = 0; start < pairs; start += NOISE_LANES) {
    const int m = int(std::min<int64_t>(NOISE_LANES, pairs - start));
    int32_t i[NOISE_LANES], j[NOISE_LANES];
    for (int k = 0; k < m; ++k)
      i[k] = int32_t(beads[start + k]), j[k] = int32_t(beads[pairs + start + k]);
    source.fill(step, m, i, j, fresh, int(components), g);
    for (int k = 0; k < m; ++k)
      for (int64_t c = 0; c < components; ++c)
        out[(start + k) * components + c] = double(g[c][k]);
  }
}

class PairStepperIn final : public PairStepper {
 public:
  PairStepperIn(int64_t n, const int32_t* places, int64_t n_types, const int64_t* types,
              const double* masses, const PairFrictionArgs& args)
      : places_(places, places + n), n_types_(int(n_types)), types_(types, types + n),
        masses_(masses, masses + n), x_(3 * n), v_(3 * n), f_(3 * n), before_(3 * n) {
    configure(args);
  }
  void configure(const PairFrictionArgs& args) override {
    std::vector<int32_t> beads;
    std::vector<double> auxiliary;
    if (now_) read(beads, auxiliary);
    auto next = std::make_unique<Now>(*this, args);
    if (now_) {
      next->friction.with_moment = now_->friction.with_moment;
      std::copy(now_->friction.moment, now_->friction.moment + 9, next->friction.moment);
    }
    now_ = std::move(next);
    write(beads, auxiliary);
  }
  void step(int64_t seed, int64_t step, const double* box, int threads, double* positions,
            double* velocities, const double* forces) override {
    const int64_t n = int64_t(places_.size());
    for (int64_t i = 0; i < n; ++i)
      for (int c = 0; c < 3; ++c) {
        const int64_t from = 3 * int64_t(places_[i]) + c, to = c * n + i;
        x_[to] = positions[from], v_[to] = velocities[from], f_[to] = forces[from];
      }
    now_->friction.threads = threads;
    const double dt = now_->tables.shape.dt;
    if (!pair_step(now_->friction, step, PairNoise(seed, 0), Box(box), dt, n, masses_.data(),
                   f_.data(), x_.data(), v_.data(), before_.data(), nullptr)) {
      const Farthest farthest = farthest_moved(n, 0.5 * dt, before_.data(), v_.data(), f_.data(),
                                               places_.data());
      throw Explosion(farthest.text, farthest.bead);
    }
    for (int64_t i = 0; i < n; ++i)
      for (int c = 0; c < 3; ++c) {
        const int64_t to = 3 * int64_t(places_[i]) + c, from = c * n + i;
        positions[to] = x_[from], velocities[to] = v_[from];
      }
  }
  void read(std::vector<int32_t>& beads, std::vector<double>& auxiliary) const override {
    now_->friction.read(beads, auxiliary);
  }
  void collect_moment(double* sums) override {
    double* const moment = now_->friction.moment;
    std::copy(moment, moment + 9, sums);
    std::fill(moment, moment + 9, 0.0);
    now_->friction.with_moment = true;
  }
  void write(const std::vector<int32_t>& beads, const std::vector<double>& auxiliary) override {
    now_->friction.write(int64_t(beads.size()) / 2, beads.data(), auxiliary.data());
  }

 private:
  // The friction, with a copy of its parameters.
  struct Now {
    std::vector<double> r_min, splines, memory, self;
    PairTables tables;
    PairFriction friction;
    Now(const PairStepperIn& of, PairFrictionArgs args)
        : r_min(args.r_min, args.r_min + kinds(of.n_types_)),
          splines(args.splines,
                  args.splines + kinds(of.n_types_) * 2 * (args.extra + 1) * args.n_basis),
          memory(args.memory, args.memory + kinds(of.n_types_) * args.extra * args.extra),
          self(args.self, args.self + of.n_types_),
          tables(friction_of(of.n_types_, (args.r_min = r_min.data(), args.splines = splines.data(),
                                           args.memory = memory.data(), args.self = self.data(),
                                           args))),
          friction(tables, int64_t(of.places_.size()), of.types_.data(), of.masses_.data(), SKIN) {
    }
    static int64_t kinds(int64_t n_types) { return n_types * (n_types + 1) / 2; }
  };

  // A new list costs as much as several looks at its pairs.
  static constexpr double SKIN = 0.20;
  std::vector<int32_t> places_;
  int n_types_;
  std::vector<int64_t> types_;
  std::vector<double> masses_, x_, v_, f_, before_;  // the latter [3,n]
  std::unique_ptr<Now> now_;
};

PairStepper* make_pair_stepper(int64_t n, const int32_t* places, int64_t n_types, const int64_t* types,
                      const double* masses, const PairFrictionArgs& args) {
  return new PairStepperIn(n, places, n_types, types, masses, args);
}

#define CGADV_STRING(x) CGADV_STRING_(x)
#define CGADV_STRING_(x) #x

const KernelTable table = {
    CGADV_STRING(CGADV_ISA),
    [](const PotentialArgs& a, int64_t* n_types) -> int64_t {
      const Potential<double> potential = unpack<double>(a);
      if (n_types) *n_types = potential.n_types;
      return potential.n_parameters();
    },
    [](const PotentialArgs& a, const SystemArgs& s, double* e, double* g, double* t) {
      value<const SystemArgs&>(a, s, e, g, t);
    },
    make_evaluator,
    [](SystemEvaluator* f, const double* theta, const double* x, const double* box, int threads,
       double factor, double* forces) {
      return f->evaluate(theta, x, box, threads, factor, forces);
    },
    [](SystemEvaluator* f) { f->forget(); },
    [](SystemEvaluator* f) { delete f; },
    [](const PotentialArgs& a, const SystemArgs& s, const double* d, double* p, double* t) {
      hvp<const SystemArgs&>(a, s, d, p, t);
    },
    [](const PotentialArgs& a, const SystemArgs& s, double* v) {
      virial<const SystemArgs&>(a, s, v);
    },
    basis_forces,
    [](const PotentialArgs& a, const SystemArgs& s, const RolloutArgs& r, const double* state,
       double* f, double* x, double* v, double* kx, double* ks) {
      rollout<const SystemArgs&, const RolloutArgs&>(a, s, r, state, f, x, v, kx, ks);
    },
    [](const PotentialArgs& a, const SystemArgs& s, const RolloutArgs& r, const double* kx,
       const double* ks, const double* df, const double* dx, const double* ds, double* gx,
       double* gs, double* gt, double* gE, double* gS) {
      rollout_backward<const SystemArgs&, const RolloutArgs&>(a, s, r, kx, ks, df, dx, ds, gx, gs,
                                                              gt, gE, gS);
    },
    [](const LangevinArgs& a, double* x, double* v, const double* f, double* z) {
      langevin_step(a, x, v, f, z);
    },
    noise,
    [](const PotentialArgs& a, const SystemArgs& s, const PairRolloutArgs& r, const double* v0,
       double* f, double* x, double* v, double* kept) {
      pair_rollout<const SystemArgs&, const PairRolloutArgs&>(a, s, r, v0, f, x, v, kept);
    },
    [](const PotentialArgs& a, const SystemArgs& s, const PairRolloutArgs& r, const double* kept,
       const double* df, const double* dx, const double* dv, double* gx, double* gv, double* gt,
       double* gs, double* gm) {
      pair_rollout_backward<const SystemArgs&, const PairRolloutArgs&>(a, s, r, kept, df, dx, dv,
                                                                       gx, gv, gt, gs, gm);
    },
    pair_noise,
    make_pair_stepper,
};

}  // namespace
}  // namespace CGADV_ISA
}  // namespace cgadv

extern "C" __attribute__((visibility("default"))) const cgadv::KernelTable* cgadv_kernels() {
  return &cgadv::table;
}
