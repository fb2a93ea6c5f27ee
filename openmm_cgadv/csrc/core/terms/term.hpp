// What a term of the energy is: it adds to shared energies, gradients, virials and to moments of its
// own, for a range of beads at a time.
//
// One code computes with packs (energy, gradient, moments) and with dual packs (the Hessian times
// a direction and the moments' derivative along it), see scalar.hpp. Moments are sums over
// configurations of beads that are conjugate to the entries of the term's tables; parameter
// gradients are made of them.
#pragma once

#include <memory>

#include "../neighbors.hpp"
#include "../scalar.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

// What terms compute from. Beads are in the order of the list.
template <class T>
struct Beads {
  const Neighbors& list;
  Box box;
  const T *x, *e;    // records (x, y, z, 0) of positions and of the direction
  bool with_virial;  // of plain runs
};

// What one thread adds up for all terms.
template <class T>
struct Sums {
  Array<T> gradient;  // [4 place + axis]; Hessian times direction in dual runs
  double energy = 0;
  Total<T> virial[9];     // its negative
  Array<Pack<T>> scratch;  // for the term at work

  void clear(int n) {
    gradient.assign(4 * n, 0);
    energy = 0;
    std::fill(virial, virial + 9, Total<T>{});
  }
};

// What one thread keeps for one term: its moments and memory to work in.
struct Work {
  virtual ~Work() = default;
};

enum class Mode { energy, energy_and_moments, hessian_and_moments };

// Which beads a term looks at: of every pair once, or all neighbours of every bead.
enum class List { half, near };

template <class T>
class Term {
 public:
  virtual ~Term() = default;
  virtual List list() const = 0;
  virtual double r_cut() const = 0;
  virtual int64_t n_parameters() const = 0;
  virtual int64_t n_moments() const = 0;
  // From now on the energy is without what depends on no parameter.
  virtual void drop_fixed() {}
  virtual void set_parameters(const double* theta) = 0;
  virtual std::unique_ptr<Work> work() const = 0;
  virtual void clear_moments(Work& work) const = 0;
  // Of the beads at places [from, to).
  virtual void add(Mode mode, const Beads<T>& beads, Sums<T>& sums, Work& work, int from,
                   int to) const = 0;
  // moments [n_moments] += those of a thread
  virtual void collect(const Work& work, double* moments) const = 0;
  // gradient [n_parameters] += factor * sum_tables dTable/dtheta * moment
  virtual void to_parameters(const double* moments, double factor, double* gradient) const = 0;
};

// A term whose template run<DUAL, THETA>(beads, sums, work, from, to) adds; DUAL: the Hessian instead
// of energy and gradient; THETA: with moments.
template <class T, class Self, class OwnWork>
class TermOf : public Term<T> {
 public:
  std::unique_ptr<Work> work() const override { return std::make_unique<OwnWork>(); }
  void add(Mode mode, const Beads<T>& beads, Sums<T>& sums, Work& work, int from,
           int to) const override {
    const Self& self = static_cast<const Self&>(*this);
    OwnWork& own = static_cast<OwnWork&>(work);
    switch (mode) {
      case Mode::energy: return self.template run<false, false>(beads, sums, own, from, to);
      case Mode::energy_and_moments:
        return self.template run<false, true>(beads, sums, own, from, to);
      case Mode::hessian_and_moments:
        return self.template run<true, true>(beads, sums, own, from, to);
    }
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
