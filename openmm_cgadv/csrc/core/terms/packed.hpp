// The packed form of a potential: integers and numbers from which the terms are made.
//
// integers: PACKED_FORMAT, number of bead types, number of terms; then for every term its tag, how many
// integers and numbers it has, and its integers. numbers: those of the terms, one after another.
// openmm_cgadv/kernels/packing.py writes it. The form of before, which stored System XML files hold,
// begins with the number of bead types and knows exactly a pair and a three-body term.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../../kernels/kernels.hpp"
#include "../errors.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

enum Tag : int64_t { PAIR = 1, THREE_BODY = 2 };

// A term as it is packed, read from the front.
class PackedTerm {
 public:
  int64_t tag;
  PackedTerm(int64_t tag, std::vector<int64_t> ints, std::vector<double> floats)
      : tag(tag), ints_(std::move(ints)), floats_(std::move(floats)) {}

  int integer() {
    if (next_int_ >= ints_.size()) wrong("integers");
    return int(ints_[next_int_++]);
  }
  double number() { return numbers(1)[0]; }
  std::vector<double> numbers(int64_t count) {
    if (count < 0 || count > int64_t(floats_.size() - next_float_)) wrong("floats");
    const auto from = floats_.begin() + next_float_;
    next_float_ += count;
    return {from, from + count};
  }
  // After the last.
  void finish() const {
    if (next_int_ != ints_.size()) wrong("integers");
    if (next_float_ != floats_.size()) wrong("floats");
  }
  [[noreturn]] static void wrong(const char* what) {
    throw InvalidInput(std::string("packed potential has a wrong number of ") + what);
  }

 private:
  std::vector<int64_t> ints_;
  std::vector<double> floats_;
  std::size_t next_int_ = 0, next_float_ = 0;
};

struct PackedPotential {
  int n_types = 0;
  std::vector<PackedTerm> terms;

  PackedPotential(const int64_t* ints, int64_t n_ints, const double* floats, int64_t n_floats) {
    if (n_ints > 0 && ints[0] == PACKED_FORMAT)
      read(ints, n_ints, floats, n_floats);
    else
      read_of_before(ints, n_ints, floats, n_floats);
    if (n_types < 1) PackedTerm::wrong("bead types");
  }

 private:
  void read(const int64_t* ints, int64_t n_ints, const double* floats, int64_t n_floats) {
    if (n_ints < 3) PackedTerm::wrong("integers");
    n_types = int(ints[1]);
    int64_t at = 3, used = 0;
    for (int64_t k = 0; k < ints[2]; ++k) {
      if (at + 3 > n_ints) PackedTerm::wrong("integers");
      const int64_t tag = ints[at], n = ints[at + 1], m = ints[at + 2];
      at += 3;
      if (n < 0 || n > n_ints - at) PackedTerm::wrong("integers");
      if (m < 0 || m > n_floats - used) PackedTerm::wrong("floats");
      terms.emplace_back(tag, std::vector<int64_t>(ints + at, ints + at + n),
                         std::vector<double>(floats + used, floats + used + m));
      at += n, used += m;
    }
    if (at != n_ints) PackedTerm::wrong("integers");
    if (used != n_floats) PackedTerm::wrong("floats");
  }

  // Types, functions of the pair term, whether there is a three-body term, its three integers.
  void read_of_before(const int64_t* ints, int64_t n_ints, const double* floats,
                      int64_t n_floats) {
    if (n_ints != 6) PackedTerm::wrong("integers");
    n_types = int(ints[0]);
    const int64_t of_pair = 1 + int64_t(n_types) * (n_types + 1);
    if (n_types < 1 || n_floats < of_pair || (ints[2] == 0 && n_floats != of_pair))
      PackedTerm::wrong("floats");
    terms.emplace_back(PAIR, std::vector<int64_t>{ints[1]},
                       std::vector<double>(floats, floats + of_pair));
    if (ints[2] != 0)
      terms.emplace_back(THREE_BODY, std::vector<int64_t>(ints + 3, ints + 6),
                         std::vector<double>(floats + of_pair, floats + n_floats));
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
