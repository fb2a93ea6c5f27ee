// The terms by their tags in the packed form.
#pragma once

#include "pair.hpp"
#include "threebody.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

template <class T>
std::unique_ptr<Term<T>> make_term(int n_types, PackedTerm packed) {
  switch (packed.tag) {
    case PAIR: return std::make_unique<PairTerm<T>>(n_types, std::move(packed));
    case THREE_BODY: return std::make_unique<ThreeBodyTerm<T>>(n_types, std::move(packed));
  }
  throw InvalidInput("packed potential has a term " + std::to_string(packed.tag) +
                           " that this version does not have; install a newer openmm_cgadv");
}

}  // namespace CGADV_ISA
}  // namespace cgadv
