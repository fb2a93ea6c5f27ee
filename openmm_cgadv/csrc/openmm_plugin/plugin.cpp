// What OpenMM calls when it loads the plugin, and what Python calls by ctypes.
//
// Functions of the second kind return null, or an error in one sentence that is valid until the
// thread's next call.

#include <sstream>
#include <string>
#include <vector>

#include "force.hpp"
#include "host.hpp"
#include "integrator.hpp"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/serialization/XmlSerializer.h"
#include "pair_integrator.hpp"
#include "serialization.hpp"

#define CGADV_EXPORT extern "C" __attribute__((visibility("default")))

using namespace OpenMM;
using namespace cgadv;

namespace {

template <class T>
std::vector<T> list(const T* values, int64_t count) {
  return count > 0 ? std::vector<T>(values, values + count) : std::vector<T>();
}

template <class F>
const char* guarded(F f) {
  static thread_local std::string message;
  try {
    f();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

template <class T>
const char* xml(const T& object, const char* root) {
  static thread_local std::string text;
  std::ostringstream stream;
  XmlSerializer::serialize(&object, root, stream);
  text = stream.str();
  return text.c_str();
}

// 8.6.0 is also known as 8.6.
std::string without_zeros(std::string version) {
  while (version.size() > 2 && version.compare(version.size() - 2, 2, ".0") == 0)
    version.resize(version.size() - 2);
  return version;
}

CGPotentialForce& force_at(void* address) {
  auto* force = dynamic_cast<CGPotentialForce*>(static_cast<Force*>(address));
  if (force == nullptr) throw OpenMMException("found another force, expected a CGPotentialForce");
  return *force;
}

template <class T>
T& integrator_at(void* address, const char* expected) {
  auto* found = dynamic_cast<T*>(static_cast<Integrator*>(address));
  if (found == nullptr)
    throw OpenMMException(std::string("found another integrator, expected ") + expected);
  return *found;
}

BeadIntegrator& bead_integrator_at(void* address) {
  return integrator_at<BeadIntegrator>(
      address, "a GeneralizedLangevinIntegrator or a PairFrictionIntegrator");
}

PairFrictionIntegrator& pair_integrator_at(void* address) {
  return integrator_at<PairFrictionIntegrator>(address, "a PairFrictionIntegrator");
}

PairFrictionIntegrator::Friction friction(int64_t n_types, int64_t extra, double r_cut,
                                          const double* r_min, int64_t n_r_min,
                                          const double* splines, int64_t n_splines,
                                          const double* memory, int64_t n_memory,
                                          const double* self, int64_t n_self) {
  PairFrictionIntegrator::Friction f;
  f.n_types = n_types, f.extra = extra, f.r_cut = r_cut;
  f.r_min = list(r_min, n_r_min), f.splines = list(splines, n_splines);
  f.memory = list(memory, n_memory), f.self = list(self, n_self);
  return f;
}

}  // namespace

CGADV_EXPORT void registerPlatforms() {
  const std::string found = Platform::getOpenMMVersion();
  if (without_zeros(found) != without_zeros(CGADV_OPENMM_VERSION))
    throw OpenMMException("the plugin of openmm_cgadv was built for OpenMM " CGADV_OPENMM_VERSION
                          ", found OpenMM " + found);
}

CGADV_EXPORT void registerKernelFactories() {
  registerProxies();
  for (int k = 0; k < Platform::getNumPlatforms(); ++k) {
    Platform& platform = Platform::getPlatform(k);
    if (dynamic_cast<ReferencePlatform*>(&platform) == nullptr) continue;
    auto* factory = new HostKernelFactory;
    platform.registerKernelFactory(CalcCGPotentialForceKernel::Name(), factory);
    platform.registerKernelFactory(GeneralizedLangevinIntegrator::Kernel(), factory);
    platform.registerKernelFactory(PairFrictionIntegrator::Kernel(), factory);
  }
}

CGADV_EXPORT const char* cgadv_force_xml(const int64_t* ints, int64_t n_ints, const double* floats,
                                         int64_t n_floats, const double* theta, int64_t n_theta,
                                         const int64_t* types, int64_t n_types,
                                         const int64_t* particles, int64_t n_particles,
                                         const int64_t* exclusions, int64_t n_exclusions,
                                         int32_t single, const char* description,
                                         const char** out) {
  return guarded([&] {
    CGPotentialForce::Definition d;
    d.ints = list(ints, n_ints), d.floats = list(floats, n_floats);
    d.theta = list(theta, n_theta), d.types = list(types, n_types);
    d.particles = list(particles, n_particles), d.exclusions = list(exclusions, n_exclusions);
    d.single_precision = single != 0, d.description = description;
    *out = xml<Force>(CGPotentialForce(std::move(d)), "Force");
  });
}

CGADV_EXPORT const char* cgadv_integrator_xml(const double* drift, int64_t n_drift,
                                              int64_t n_types, const int64_t* types, int64_t n,
                                              double temperature, double timestep, int32_t seed,
                                              const char** out) {
  return guarded([&] {
    GeneralizedLangevinIntegrator integrator(list(drift, n_drift), n_types, list(types, n),
                                             temperature, timestep);
    integrator.setRandomNumberSeed(seed);
    *out = xml<Integrator>(integrator, "Integrator");
  });
}

CGADV_EXPORT const char* cgadv_pair_integrator_xml(
    int64_t n_types, int64_t extra, double r_cut, const double* r_min, int64_t n_r_min,
    const double* splines, int64_t n_splines, const double* memory, int64_t n_memory,
    const double* self, int64_t n_self, const int64_t* types, int64_t n, double temperature,
    double timestep, double tolerance, int32_t seed, const char** out) {
  return guarded([&] {
    PairFrictionIntegrator integrator(friction(n_types, extra, r_cut, r_min, n_r_min, splines,
                                               n_splines, memory, n_memory, self, n_self),
                                      list(types, n), temperature, timestep, tolerance);
    integrator.setRandomNumberSeed(seed);
    *out = xml<Integrator>(integrator, "Integrator");
  });
}

// 1 if this is a CGPotentialForce, else 0.
CGADV_EXPORT int32_t cgadv_is_force(void* force) {
  return dynamic_cast<CGPotentialForce*>(static_cast<Force*>(force)) != nullptr;
}

CGADV_EXPORT const char* cgadv_set_parameters(void* force, const double* theta, int64_t count) {
  return guarded([&] { force_at(force).setParameters(list(theta, count)); });
}

CGADV_EXPORT const char* cgadv_update_context(void* force, void* context) {
  return guarded(
      [&] { force_at(force).updateParametersInContext(*static_cast<Context*>(context)); });
}

// 1 if this is a GeneralizedLangevinIntegrator, else 0.
CGADV_EXPORT int32_t cgadv_is_integrator(void* integrator) {
  return dynamic_cast<GeneralizedLangevinIntegrator*>(static_cast<Integrator*>(integrator)) !=
         nullptr;
}

// 1 if this is a PairFrictionIntegrator, else 0.
CGADV_EXPORT int32_t cgadv_is_pair_integrator(void* integrator) {
  return dynamic_cast<PairFrictionIntegrator*>(static_cast<Integrator*>(integrator)) != nullptr;
}

CGADV_EXPORT const char* cgadv_set_drift(void* integrator, const double* drift, int64_t count) {
  return guarded([&] {
    integrator_at<GeneralizedLangevinIntegrator>(integrator, "a GeneralizedLangevinIntegrator")
        .setDrift(list(drift, count));
  });
}

CGADV_EXPORT const char* cgadv_set_friction(void* integrator, int64_t n_types, int64_t extra,
                                            double r_cut, const double* r_min, int64_t n_r_min,
                                            const double* splines, int64_t n_splines,
                                            const double* memory, int64_t n_memory,
                                            const double* self, int64_t n_self) {
  return guarded([&] {
    pair_integrator_at(integrator)
        .setFriction(friction(n_types, extra, r_cut, r_min, n_r_min, splines, n_splines, memory,
                              n_memory, self, n_self));
  });
}

CGADV_EXPORT const char* cgadv_set_tolerance(void* integrator, double tolerance) {
  return guarded([&] { pair_integrator_at(integrator).setTolerance(tolerance); });
}

CGADV_EXPORT const char* cgadv_take_moment(void* integrator, double* moment) {
  return guarded([&] { pair_integrator_at(integrator).takeMoment(moment); });
}

CGADV_EXPORT const char* cgadv_set_temperature(void* integrator, double temperature) {
  return guarded([&] { bead_integrator_at(integrator).setTemperature(temperature); });
}

CGADV_EXPORT const char* cgadv_set_seed(void* integrator, int32_t seed) {
  return guarded([&] { bead_integrator_at(integrator).setRandomNumberSeed(seed); });
}
