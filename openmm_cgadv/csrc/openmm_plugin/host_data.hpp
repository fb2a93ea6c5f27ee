// What the host platforms, Reference and CPU, keep of a Context, and checkpoints of numbers.
#pragma once

#include <algorithm>
#include <istream>
#include <ostream>
#include <string>
#include <vector>

#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/reference/ReferencePlatform.h"

namespace cgadv {

constexpr double KB = 0.00831446261815324;  // kJ/mol/K, as in openmm_cgadv/units.py

inline OpenMM::ReferencePlatform::PlatformData& data_of(OpenMM::ContextImpl& context) {
  return *static_cast<OpenMM::ReferencePlatform::PlatformData*>(context.getPlatformData());
}

inline double* numbers_of(std::vector<OpenMM::Vec3>& vectors) {
  static_assert(sizeof(OpenMM::Vec3) == 3 * sizeof(double), "OpenMM's vectors must be three doubles");
  return vectors.empty() ? nullptr : &vectors[0][0];
}

// The box vectors in rows.
inline std::vector<double> box_of(OpenMM::ReferencePlatform::PlatformData& data) {
  std::vector<double> box(9);
  for (int k = 0; k < 9; ++k) box[k] = data.periodicBoxVectors[k / 3][k % 3];
  return box;
}

inline bool is_reference(const OpenMM::Platform& platform) {
  return platform.getName() == "Reference";
}

inline int threads_of(OpenMM::ContextImpl& context) {
  const OpenMM::Platform& platform = context.getPlatform();
  if (is_reference(platform)) return 1;
  return std::max(1, std::stoi(platform.getPropertyValue(context.getOwner(), "Threads")));
}

// Twice the kinetic energy of some particles of an array.
inline double twice_kinetic(const std::vector<OpenMM::Vec3>& velocities,
                            const std::vector<int32_t>& beads, const std::vector<double>& masses) {
  double twice = 0;
  for (std::size_t i = 0; i < beads.size(); ++i)
    twice += masses[i] * velocities[beads[i]].dot(velocities[beads[i]]);
  return twice;
}

template <class T>
void write(std::ostream& stream, const T* values, std::size_t count) {
  stream.write(reinterpret_cast<const char*>(values), std::streamsize(count * sizeof(T)));
}

template <class T>
void read(std::istream& stream, T* values, std::size_t count) {
  if (!stream.read(reinterpret_cast<char*>(values), std::streamsize(count * sizeof(T))))
    throw OpenMM::OpenMMException("loadCheckpoint: the checkpoint ends before its integrator does");
}

}  // namespace cgadv
