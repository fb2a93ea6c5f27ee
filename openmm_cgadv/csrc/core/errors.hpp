// What the core throws, besides std::bad_alloc. The same types in the builds of all instruction sets.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace cgadv {

// Beads that moved too far, or to no place at all. What is not known is -1; counted from 0.
class __attribute__((visibility("default"))) Explosion : public std::runtime_error {
 public:
  int64_t step, replica, bead;
  explicit Explosion(const std::string& text, int64_t bead = -1, int64_t step = -1,
                     int64_t replica = -1)
      : std::runtime_error(text), step(step), replica(replica), bead(bead) {}
};

// Arguments that do not fit together or that this version does not handle.
class __attribute__((visibility("default"))) InvalidInput : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace cgadv
