// The core by itself: derivatives against finite differences, lists against brute force, a rollout
// and its adjoint, degenerate systems. Built with sanitizers by tests/test_kernels.py.

#include <cstdio>
#include <random>

#include "langevin.hpp"
#include "pair_rollout.hpp"
#include "propagator.hpp"
#include "rollout.hpp"

using namespace cgadv;

namespace {

int failures = 0;

void expect(bool holds, const char* what, double found, double expected) {
  if (holds) return;
  std::printf("FAILED: %s: found %.12g, expected %.12g\n", what, found, expected);
  ++failures;
}

void close(const char* what, double found, double expected, double tolerance) {
  expect(std::abs(found - expected) <= tolerance * (1 + std::abs(expected)), what, found, expected);
}

struct System {
  int n, n_types;
  std::vector<int64_t> types;
  std::vector<double> x, box, theta, direction;
  std::vector<int64_t> ints;
  std::vector<double> floats;

  System(int n, int n_types, double length, int l_max, unsigned seed) : n(n), n_types(n_types) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<> uniform;
    std::normal_distribution<> normal;
    const int pairs = n_types * (n_types + 1) / 2, radial = 2, basis3 = 3;
    ints = {PACKED_FORMAT, n_types, 2,
            PAIR, 1, 1 + 2 * pairs, 9,
            THREE_BODY, 3, 2 + radial * basis3, basis3, radial, l_max};
    floats = {0.5};
    for (int p = 0; p < pairs; ++p) floats.push_back(0.2 + 0.02 * p);
    for (int p = 0; p < pairs; ++p) floats.push_back(1e4);
    floats.insert(floats.end(), {0.15, 0.4});
    for (int k = 0; k < radial * basis3; ++k) floats.push_back(normal(random));
    theta.resize(potential<double>().n_parameters());
    for (auto& t : theta) t = normal(random);
    box = {length, 0, 0, 0.3 * length, length, 0, -0.2 * length, 0.1 * length, length};
    for (int i = 0; i < n; ++i) {
      types.push_back(int64_t(uniform(random) * n_types));
      for (int c = 0; c < 3; ++c) {
        x.push_back((4 * uniform(random) - 2) * length);
        direction.push_back(normal(random));
      }
    }
  }
  template <class T>
  Potential<T> potential() const {
    return {ints.data(), int64_t(ints.size()), floats.data(), int64_t(floats.size())};
  }
  template <class T>
  Potential<T> potential(const std::vector<double>& parameters) const {
    Potential<T> made = potential<T>();
    made.set_parameters(parameters.data());
    return made;
  }
};

template <class T>
struct Result {
  double energy;
  std::vector<double> gradient, theta;
};

template <class T, bool DUAL>
Result<T> run(const System& s, const std::vector<double>& x, const std::vector<double>& theta,
              int threads = 1) {
  const Potential<T> potential = s.potential<T>(theta);
  Evaluator<T> e(potential, 0.05);
  e.threads = threads;
  e.set_positions(s.n, {x.data(), 3, 1}, s.types.data(), Box(s.box.data()));
  if (DUAL) e.set_direction({s.direction.data(), 3, 1});
  e.run(DUAL ? Mode::hessian_and_moments : Mode::energy_and_moments);
  Result<T> r{e.energy, std::vector<double>(3 * s.n), std::vector<double>(theta.size(), 0.0)};
  for (int p = 0; p < s.n; ++p)
    for (int c = 0; c < 3; ++c) r.gradient[3 * e.list.order[p] + c] = double(e.gradient(p, c));
  e.add_parameter_gradient(1, r.theta.data());
  return r;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double s = 0;
  for (std::size_t i = 0; i < a.size(); ++i) s += a[i] * b[i];
  return s;
}

std::vector<double> moved(const std::vector<double>& a, double step, const std::vector<double>& d) {
  std::vector<double> r = a;
  for (std::size_t i = 0; i < a.size(); ++i) r[i] += step * d[i];
  return r;
}

void derivatives(const System& s) {
  const double step = 1e-6;
  const auto ahead = run<double, false>(s, moved(s.x, step, s.direction), s.theta);
  const auto behind = run<double, false>(s, moved(s.x, -step, s.direction), s.theta);
  const auto here = run<double, false>(s, s.x, s.theta);
  const auto dual = run<double, true>(s, s.x, s.theta);
  close("gradient along a direction", dot(here.gradient, s.direction),
        (ahead.energy - behind.energy) / (2 * step), 1e-5);
  double worst = 0, largest = 0;
  for (int i = 0; i < 3 * s.n; ++i) {
    worst = std::max(worst, std::abs(dual.gradient[i] -
                                     (ahead.gradient[i] - behind.gradient[i]) / (2 * step)));
    largest = std::max(largest, std::abs(dual.gradient[i]));
  }
  close("Hessian times direction", worst / (largest + 1), 0, 1e-4);
  std::vector<double> d_theta(s.theta.size());
  for (std::size_t k = 0; k < d_theta.size(); ++k) d_theta[k] = std::sin(double(k));
  close("parameter gradient",
        dot(here.theta, d_theta),
        (run<double, false>(s, s.x, moved(s.theta, step, d_theta)).energy -
         run<double, false>(s, s.x, moved(s.theta, -step, d_theta)).energy) / (2 * step), 1e-6);
  close("mixed derivative", dot(dual.theta, d_theta),
        (dot(ahead.theta, d_theta) - dot(behind.theta, d_theta)) / (2 * step), 1e-4);
  const auto single = run<float, false>(s, s.x, s.theta);
  close("single precision", single.energy, here.energy, 1e-4);
}

void threads(const System& s) {
  const auto one = run<double, true>(s, s.x, s.theta), two = run<double, true>(s, s.x, s.theta, 2);
  close("threads: Hessian", dot(two.gradient, s.direction), dot(one.gradient, s.direction), 1e-10);
  close("threads: parameters", dot(two.theta, s.theta), dot(one.theta, s.theta), 1e-10);
}

// Along a random walk every pair within the cutoff is in the list, once.
void lists(int n, double length) {
  System s(n, 2, length, 2, 3);
  Neighbors list(0.5, 0.3, 0.05, 4);
  Array<double> records;
  std::mt19937 random(1);
  std::normal_distribution<> normal(0, 0.01);
  const Box box(s.box.data());
  long missed = 0, wrong = 0;
  for (int step = 0; step < 12; ++step) {
    for (auto& v : s.x) v += normal(random);
    list.update(n, {s.x.data(), 3, 1}, s.types.data(), box, records, 2);
    std::vector<char> half(n * n, 0), near(n * n, 0);
    for (int p = 0; p < n; ++p) {
      for (int k = 0; k < list.half_count[p]; ++k) {
        const int q = list.half[list.half_start[p] + k];
        wrong += q <= p || half[p * n + q]++;
      }
      for (int k = list.near_start[p]; k < list.near_start[p + 1]; ++k)
        wrong += list.near[k] == p || near[p * n + list.near[k]]++;
    }
    for (int p = 0; p < n; ++p)
      for (int q = p + 1; q < n; ++q) {
        double d[3];
        for (int c = 0; c < 3; ++c)
          d[c] = s.x[3 * list.order[q] + c] - s.x[3 * list.order[p] + c];
        box.nearest(d[0], d[1], d[2]);
        const double r = std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
        missed += r < 0.5 && !half[p * n + q];
        missed += r < 0.3 && (!near[p * n + q] || !near[q * n + p]);
      }
  }
  expect(missed == 0, "pairs missed by the list", double(missed), 0);
  expect(wrong == 0, "pairs listed twice or with themselves", double(wrong), 0);
}

void rollouts() {
  System s(20, 2, 1.2, 3, 7);
  // Beads on a lattice: at random they would be on top of each other.
  for (int i = 0; i < s.n; ++i) {
    const int cell[3] = {i % 3, i / 3 % 3, i / 9};
    for (int c = 0; c < 3; ++c) s.x[3 * i + c] = 0.4 * cell[c] + 0.01 * s.direction[3 * i + c];
  }
  s.box = {1.2, 0, 0, 0, 1.2, 0, 0, 0, 1.2};
  const int K = 1, C = 3 * (K + 1), n = s.n;
  const std::vector<int64_t> frames = {0, 2, 6};
  std::vector<double> masses(n, 20.0), E, S;
  for (int a = 0; a < 2; ++a) {
    E.insert(E.end(), {0.9, 0.1, -0.1, 0.8});
    S.insert(S.end(), {0.4, 0, 0.05, 0.6});
  }
  std::vector<double> state(C * n), weights(3 * 3 * n), no_x(3 * n, 0.0), no_s(C * n, 0.0);
  for (std::size_t i = 0; i < state.size(); ++i) state[i] = 0.3 * std::sin(1.0 + double(i));
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = std::cos(double(i));
  RolloutShape shape;
  shape.n = n, shape.extra = K, shape.frames = frames.data(), shape.n_frames = 3;
  shape.kT = 2.5, shape.dt = 0.004, shape.forget = INFINITY, shape.seed = -3;
  std::vector<double> kept_x(6 * 3 * n), kept_s(6 * C * n), out(3 * 3 * n), x1(3 * n), s1(C * n);
  auto loss = [&](const std::vector<double>& x, const std::vector<double>& theta,
                  const std::vector<double>& e) {
    const Potential<double> potential = s.potential<double>(theta);
    Rollout<double> r(potential, shape, s.types.data(), masses.data(), s.box.data(), e.data(),
                      S.data(), 1, 1);
    r.forward(x.data(), state.data(), out.data(), x1.data(), s1.data(), kept_x.data(),
              kept_s.data());
    return dot(out, weights);
  };
  loss(s.x, s.theta, E);
  std::vector<double> gx(3 * n), gs(C * n), gt(s.theta.size(), 0.0), gE(8, 0.0), gS(8, 0.0);
  {
    const Potential<double> potential = s.potential<double>(s.theta);
    Rollout<double> r(potential, shape, s.types.data(), masses.data(), s.box.data(), E.data(),
                      S.data(), 1, 1);
    r.backward(kept_x.data(), kept_s.data(), weights.data(), no_x.data(), no_s.data(), gx.data(),
               gs.data(), gt.data(), gE.data(), gS.data());
  }
  const double step = 1e-6;
  std::vector<double> d_theta(s.theta.size(), 1.0), d_E = {1, -1, 2, 0.5, 0, 1, 1, -2};
  close("rollout: positions", dot(gx, s.direction),
        (loss(moved(s.x, step, s.direction), s.theta, E) -
         loss(moved(s.x, -step, s.direction), s.theta, E)) / (2 * step), 1e-6);
  close("rollout: parameters", dot(gt, d_theta),
        (loss(s.x, moved(s.theta, step, d_theta), E) -
         loss(s.x, moved(s.theta, -step, d_theta), E)) / (2 * step), 1e-6);
  close("rollout: friction", dot(gE, d_E),
        (loss(s.x, s.theta, moved(E, step, d_E)) - loss(s.x, s.theta, moved(E, -step, d_E))) /
            (2 * step), 1e-6);
}

// A list with exclusions is that without them, less the excluded pairs.
void exclusions(int n, double length) {
  System s(n, 2, length, 2, 11);
  std::vector<int64_t> pairs;
  for (int k = 0; k < 3 * n; ++k) {
    const int64_t i = (7 * k) % n, j = (13 * k * k + 5) % n;
    if (i != j) pairs.insert(pairs.end(), {i, j});
  }
  Neighbors all(0.5, 0.3, 0.05, 8), fewer(0.5, 0.3, 0.05, 8);
  fewer.exclude(n, pairs.data(), int64_t(pairs.size() / 2));
  auto listed = [&](Neighbors& list) {
    Array<double> records;
    list.update(n, {s.x.data(), 3, 1}, s.types.data(), Box(s.box.data()), records, 1);
    std::vector<int> seen(2 * n * n, 0);
    for (int p = 0; p < n; ++p) {
      for (int k = 0; k < list.half_count[p]; ++k) {
        const int i = list.order[p], j = list.order[list.half[list.half_start[p] + k]];
        ++seen[std::min(i, j) * n + std::max(i, j)];
      }
      for (int k = list.near_start[p]; k < list.near_start[p + 1]; ++k)
        ++seen[n * n + list.order[p] * n + list.order[list.near[k]]];
    }
    return seen;
  };
  std::vector<int> expected = listed(all);
  for (std::size_t k = 0; k < pairs.size(); k += 2)
    for (int side = 0; side < 2; ++side) {
      const int64_t i = pairs[k + side], j = pairs[k + 1 - side];
      expected[i * n + j] = expected[n * n + i * n + j] = 0;
    }
  const std::vector<int> found = listed(fewer);
  int wrong = 0;
  for (std::size_t k = 0; k < found.size(); ++k) wrong += found[k] != expected[k];
  expect(wrong == 0, "lists with exclusions", wrong, 0);
}

// E E^T + S S^T = 1, and a step of beads that somebody else keeps is that of a rollout.
void langevin_steps() {
  const int n = 131, K = 2, R = K + 1, C = 3 * R, steps = 5;
  const std::vector<double> drift = {3, 5, 0, -5, 20, 9, 0, -9, 40, 30, 2, 1, -2, 8, 0, -1, 0, 9};
  Matrix E, S;
  propagator(drift.data(), 2, R, 0.02, E, S);
  for (int t = 0; t < 2; ++t)
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < R; ++j) {
        double sum = 0;
        for (int k = 0; k < R; ++k)
          sum += E[(t * R + i) * R + k] * E[(t * R + j) * R + k] +
                 S[(t * R + i) * R + k] * S[(t * R + j) * R + k];
        close("propagator", sum, i == j, 1e-14);
      }
  System s(n, 2, 9.0, 2, 3);
  std::fill(s.theta.begin(), s.theta.end(), 0.0);
  std::fill(s.floats.begin() + 4, s.floats.begin() + 7, 0.0);  // no core: beads are free
  std::vector<double> masses(n), state(C * n), x1(3 * n), s1(C * n);
  for (int i = 0; i < n; ++i) masses[i] = 10 + i % 7;
  for (std::size_t i = 0; i < state.size(); ++i) state[i] = 0.3 * std::sin(1.0 + double(i));
  const int64_t last = steps;
  RolloutShape shape;
  shape.n = n, shape.extra = K, shape.frames = &last, shape.n_frames = 1;
  shape.kT = 2.5, shape.dt = 0.02, shape.forget = INFINITY, shape.seed = 8;
  const Potential<double> potential = s.potential<double>(s.theta);
  std::vector<double> frame(3 * n);
  Rollout<double>(potential, shape, s.types.data(), masses.data(), s.box.data(), E.data(),
                  S.data(), 0, 1)
      .forward(s.x.data(), state.data(), frame.data(), x1.data(), s1.data(), nullptr, nullptr);

  std::vector<int32_t> beads;
  std::vector<int64_t> first = {0};
  std::vector<double> sorted;
  for (int t = 0; t < 2; ++t) {
    for (int i = 0; i < n; ++i)
      if (s.types[i] == t) beads.push_back(i), sorted.push_back(masses[i]);
    first.push_back(int64_t(beads.size()));
  }
  std::vector<double> x = s.x, v(3 * n), z(3 * K * n), none(3 * n, 0.0);
  for (int p = 0; p < n; ++p)
    for (int c = 0; c < C; ++c)
      (c < 3 ? v[3 * beads[p] + c] : z[(c - 3) * n + p]) = state[beads[p] * C + c];
  LangevinArgs a{};
  a.n = n, a.beads = beads.data(), a.n_types = 2, a.first = first.data(), a.masses = sorted.data();
  a.extra = K, a.E = E.data(), a.S = S.data(), a.kT = 2.5, a.dt = 0.02, a.seed = 8, a.threads = 1;
  for (; a.step < steps; ++a.step) langevin_step(a, x.data(), v.data(), none.data(), z.data());
  double largest = 0;
  for (int i = 0; i < 3 * n; ++i) largest = std::max(largest, std::abs(x[i] - x1[i]));
  for (int p = 0; p < n; ++p)
    for (int c = 3; c < C; ++c)
      largest = std::max(largest, std::abs(z[(c - 3) * n + p] - s1[beads[p] * C + c]));
  expect(largest < 1e-12, "steps of beads that somebody else keeps", largest, 0);
}

// Pair friction of several kinds: its adjoint, with all steps replayed at once or in stretches.
void pair_rollouts(int K, double own) {
  System s(27, 2, 1.2, 3, 7);
  for (int i = 0; i < s.n; ++i) {
    const int cell[3] = {i % 3, i / 3 % 3, i / 9};
    for (int c = 0; c < 3; ++c) s.x[3 * i + c] = 0.4 * cell[c] + 0.01 * s.direction[3 * i + c];
  }
  s.box = {1.2, 0, 0, 0, 1.2, 0, 0, 0, 1.2};
  const int n = s.n, basis = 6, functions = 2 * (K + 1);
  const std::vector<int64_t> frames = {0, 5, 23};
  const std::vector<double> self = {own, 0.5 * own};
  std::vector<double> masses(n), r_min = {0.25, 0.2, 0.3}, splines(3 * functions * basis),
      memory(3 * K * K, 0.0), d_splines(splines.size()), d_memory(memory.size());
  for (int i = 0; i < n; ++i) masses[i] = s.types[i] ? 40.0 : 20.0;
  for (std::size_t k = 0; k < splines.size(); ++k)
    splines[k] = 5 + 3 * std::sin(2.0 * k), d_splines[k] = std::cos(double(k));
  for (int k = 0; k < 3 * K * K; ++k) {
    const int i = k / K % K, j = k % K;
    memory[k] = i == j ? 5.0 + k : i < j ? 4.0 : -4.0;
    d_memory[k] = i == j ? 1.0 : i < j ? 2.0 : -2.0;
  }
  std::vector<double> v(3 * n), weights(9 * n), none(3 * n, 0.0), out(9 * n), x1(3 * n), v1(3 * n);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = 0.3 * std::sin(1.0 + double(i));
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = std::cos(double(i));
  PairRolloutShape shape;
  shape.n = n, shape.frames = frames.data(), shape.n_frames = 3, shape.forget = INFINITY;
  shape.seed = -3;
  const Potential<double> potential = s.potential<double>(s.theta);
  auto friction = [&](const std::vector<double>& splines, const std::vector<double>& memory) {
    return PairFrictionShape{2, K, basis, 0.55, r_min.data(), splines.data(), memory.data(),
                             self.data(), 2.5, 0.004, 1e-12};
  };
  std::vector<double> kept((2 * 23 + 1) * 3 * n);
  auto loss = [&](const std::vector<double>& x, const std::vector<double>& splines,
                  const std::vector<double>& memory) {
    const PairTables pairs(friction(splines, memory));
    PairRollout<double> r(potential, pairs, shape, s.types.data(), masses.data(), s.box.data(),
                          1, 1);
    r.forward(x.data(), v.data(), out.data(), x1.data(), v1.data(), kept.data());
    return dot(out, weights);
  };
  loss(s.x, splines, memory);
  double before[3] = {}, after[3] = {};
  for (int i = 0; i < n; ++i)
    for (int c = 0; c < 3; ++c)
      before[c] += masses[i] * v[3 * i + c], after[c] += masses[i] * v1[3 * i + c];
  for (int c = 0; c < 3 && own == 0; ++c) close("pairs: momentum", after[c], before[c], 1e-11);
  const std::vector<double> path = kept;
  const PairTables pairs(friction(splines, memory));
  std::vector<double> gx[2], gv(3 * n), gt[2], gs[2], gm[2];
  for (int k = 0; k < 2; ++k) {
    gx[k].resize(3 * n), gt[k].assign(s.theta.size(), 0.0);
    gs[k].assign(splines.size(), 0.0), gm[k].assign(memory.size(), 0.0);
    if (k == 1) shape.replay_bytes = 1;
    PairRollout<double> r(potential, pairs, shape, s.types.data(), masses.data(), s.box.data(),
                          1, 1);
    r.backward(path.data(), weights.data(), none.data(), none.data(), gx[k].data(), gv.data(),
               gt[k].data(), gs[k].data(), gm[k].data());
  }
  close("pairs: stretches, positions", dot(gx[1], s.direction), dot(gx[0], s.direction), 1e-11);
  close("pairs: stretches, splines", dot(gs[1], d_splines), dot(gs[0], d_splines), 1e-11);
  const double step = 1e-6;
  close("pairs: positions", dot(gx[0], s.direction),
        (loss(moved(s.x, step, s.direction), splines, memory) -
         loss(moved(s.x, -step, s.direction), splines, memory)) / (2 * step), 1e-5);
  close("pairs: splines", dot(gs[0], d_splines),
        (loss(s.x, moved(splines, step, d_splines), memory) -
         loss(s.x, moved(splines, -step, d_splines), memory)) / (2 * step), 1e-6);
  close("pairs: memory", dot(gm[0], d_memory),
        (loss(s.x, splines, moved(memory, step, d_memory)) -
         loss(s.x, splines, moved(memory, -step, d_memory))) / (2 * step), 1e-6);
}

}  // namespace

int main() {
  for (int n_types = 1; n_types <= 3; ++n_types)
    for (int l_max : {0, 2, 3, 5, 8}) derivatives(System(30, n_types, 1.1, l_max, 10 + l_max));
  derivatives(System(1, 1, 1.1, 4, 1));
  derivatives(System(2, 1, 9.0, 4, 2));
  derivatives(System(17, 2, 5.0, 4, 3));
  derivatives(System(200, 1, 2.2, 4, 4));
  threads(System(2100, 2, 6.0, 4, 5));
  lists(40, 1.1);
  lists(150, 2.0);
  lists(400, 3.1);
  exclusions(40, 1.1);
  exclusions(400, 3.1);
  langevin_steps();
  rollouts();
  for (int K : {0, 1, 3}) pair_rollouts(K, 0);
  pair_rollouts(2, 15);
  if (failures == 0) std::printf("all is well\n");
  return failures != 0;
}
