// A potential, the sum of its terms, and its evaluation at a configuration.
#pragma once

#include "terms/registry.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace cgadv {
inline namespace CGADV_ISA {

template <class T>
class Potential {
 public:
  int n_types;
  std::vector<std::unique_ptr<Term<T>>> terms;

  Potential(const int64_t* ints, int64_t n_ints, const double* floats, int64_t n_floats) {
    const PackedPotential packed(ints, n_ints, floats, n_floats);
    n_types = packed.n_types;
    for (const PackedTerm& term : packed.terms) terms.push_back(make_term<T>(n_types, term));
  }

  int64_t n_parameters() const {
    int64_t sum = 0;
    for (const auto& term : terms) sum += term->n_parameters();
    return sum;
  }
  // The longest cutoff of the terms that look at a list; 0 without any.
  double r_cut(List list) const {
    double longest = 0;
    for (const auto& term : terms)
      if (term->list() == list) longest = std::max(longest, term->r_cut());
    return longest;
  }
  void drop_fixed() {
    for (const auto& term : terms) term->drop_fixed();
  }
  void set_parameters(const double* theta) {
    for (const auto& term : terms) {
      term->set_parameters(theta);
      theta += term->n_parameters();
    }
  }
};

// Energy of a configuration, its gradient, and the derivatives of both along a direction. The
// potential may get other parameters between runs.
template <class T>
class Evaluator {
 public:
  Neighbors list;
  double energy = 0;  // of the last plain run
  bool with_virial = false;
  double virial[9];   // of the last plain run with_virial: -sum d_a dU/dd_b over distances d
  int threads = 1;

  Evaluator(const Potential<T>& potential, double skin)
      : list(potential.r_cut(List::half), potential.r_cut(List::near), skin, Simd<T>::W),
        potential_(potential) {
    for (const auto& term : potential.terms) moments_.emplace_back(term->n_moments(), 0.0);
  }

  void set_positions(int64_t n, Positions pos, const int64_t* types, const Box& box) {
    list.update(n, pos, types, box, x_, threads);
    box_ = box;
  }

  void set_direction(Positions direction) {
    const int n = list.size();
    e_.resize(4 * n);
    for (int p = 0; p < n; ++p) {
      for (int c = 0; c < 3; ++c) e_[4 * p + c] = T(direction(list.order[p], c));
      e_[4 * p + 3] = 0;
    }
  }

  void run(Mode mode) {
    const bool with_moments = mode != Mode::energy;
    const int n = list.size();
    int n_parts = 1;
#ifdef _OPENMP
    // Below this a thread costs more than it brings.
    n_parts = std::max(1, std::min(threads, n / 256));
#endif
    while (int(parts_.size()) < n_parts) {
      parts_.emplace_back();
      for (const auto& term : potential_.terms) parts_.back().work.push_back(term->work());
    }
    const Beads<T> beads{list, box_, x_.data(), e_.data(), with_virial};
#pragma omp parallel for num_threads(n_parts) schedule(static, 1) if (n_parts > 1)
    for (int t = 0; t < n_parts; ++t) {
      Part& part = parts_[t];
      part.sums.clear(n);
      for (std::size_t k = 0; k < potential_.terms.size(); ++k) {
        const Term<T>& term = *potential_.terms[k];
        Work& work = *part.work[k];
        if (with_moments) term.clear_moments(work);
        each_range(term.list(), n, t, n_parts, [&](int from, int to) {
          term.add(mode, beads, part.sums, work, from, to);
        });
      }
    }
    energy = 0;
    std::fill(virial, virial + 9, 0.0);
    for (int t = 0; t < n_parts; ++t) {
      const Part& part = parts_[t];
      energy += part.sums.energy;
      for (int k = 0; k < 9; ++k) virial[k] -= part.sums.virial[k].value();
      if (with_moments)
        for (std::size_t k = 0; k < moments_.size(); ++k)
          potential_.terms[k]->collect(*part.work[k], moments_[k].data());
    }
    if (n_parts == 1) return;
    T* const to = parts_[0].sums.gradient.data();
#pragma omp parallel for num_threads(n_parts) schedule(static, 1)
    for (int share = 0; share < n_parts; ++share)
      for (int t = 1; t < n_parts; ++t) {
        const T* const from = parts_[t].sums.gradient.data();
        for (int64_t k = 4L * n * share / n_parts; k < 4L * n * (share + 1) / n_parts; ++k)
          to[k] += from[k];
      }
  }

  // After run: component of the gradient (or of the Hessian times the direction).
  T gradient(int place, int axis) const { return parts_[0].sums.gradient[4 * place + axis]; }

  // Minus that, [3,n] in the caller's order of beads.
  void forces(double* out) const {
    const int n = list.size();
    for (int c = 0; c < 3; ++c)
      for (int p = 0; p < n; ++p) out[c * n + list.order[p]] = -double(gradient(p, c));
  }

  // out [P] += factor times the derivatives of all energies with respect to the parameters, or of
  // all gradients times their directions, since this was made.
  void add_parameter_gradient(double factor, double* out) const {
    for (std::size_t k = 0; k < moments_.size(); ++k) {
      potential_.terms[k]->to_parameters(moments_[k].data(), factor, out);
      out += potential_.terms[k]->n_parameters();
    }
  }

 private:
  struct Part {
    Sums<T> sums;
    std::vector<std::unique_ptr<Work>> work;  // of every term
  };

  const Potential<T>& potential_;
  Box box_;
  Array<T> x_, e_;  // records (x, y, z, 0) of positions and of the direction
  std::vector<Part> parts_;
  std::vector<std::vector<double>> moments_;  // of every term, from all runs

  // Calls f with the ranges of places that are part t's of n_parts.
  template <class F>
  static void each_range(List list, int n, int t, int n_parts, F f) {
    if (list == List::half) {
      // Rows of the half list get shorter with the place when there is one cell only, so places are
      // dealt out in small portions; portion s always goes to part s % n_parts.
      const int portion = n_parts == 1 ? n : std::max(32, std::min(512, n / (8 * n_parts)));
      for (int from = t * portion; from < n; from += n_parts * portion)
        f(from, std::min(from + portion, n));
    } else {
      const int end = int(int64_t(n) * (t + 1) / n_parts);
      for (int from = int(int64_t(n) * t / n_parts); from < end; from += 1024)
        f(from, std::min(from + 1024, end));
    }
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
