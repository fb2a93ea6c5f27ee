#include "host.hpp"

#include <cstdint>
#include <limits>
#include <map>

#include "../core/propagator.hpp"
#include "force.hpp"
#include "host_data.hpp"
#include "integrator.hpp"
#include "numbers.hpp"
#include "openmm/OpenMMException.h"
#include "openmm/System.h"
#include "openmm/internal/OSRngSeed.h"
#include "openmm/serialization/SerializationNode.h"
#include "pair_host.hpp"
#include "pair_integrator.hpp"

using namespace OpenMM;

namespace cgadv {

void HostCalcCGPotentialForceKernel::initialize(ContextImpl& context,
                                                const CGPotentialForce& force) {
  const auto& d = force.definition();
  const bool reference = is_reference(context.getPlatform());
  keeps_list_ = !reference;
  threads_ = threads_of(context);
  theta_ = d.theta;
  particles_ = d.particles;
  PotentialArgs a{};
  a.ints = d.ints.data(), a.n_ints = int64_t(d.ints.size());
  a.floats = d.floats.data(), a.n_floats = int64_t(d.floats.size());
  a.single_precision = d.single_precision && !reference;
  try {
    evaluator_.reset(cgadv::kernels().make_evaluator(a, int64_t(d.types.size()), d.types.data(),
                                            d.exclusions.data(),
                                            int64_t(d.exclusions.size() / 2)));
  } catch (const std::exception& error) {
    throw OpenMMException(std::string("CGPotentialForce: ") + error.what());
  }
}

double HostCalcCGPotentialForceKernel::execute(ContextImpl& context, bool, bool) {
  auto& data = data_of(context);
  const double scale = context.getParameter(CGPotentialForce::Scale());
  double* positions = numbers_of(*data.positions);
  double* forces = numbers_of(*data.forces);
  const bool subset = !particles_.empty();
  if (subset) {
    positions_.resize(3 * particles_.size());
    forces_.assign(3 * particles_.size(), 0.0);
    for (std::size_t i = 0; i < particles_.size(); ++i)
      std::copy_n(positions + 3 * particles_[i], 3, &positions_[3 * i]);
  }
  double energy = 0;
  try {
    if (!keeps_list_) cgadv::kernels().forget(evaluator_.get());
    energy = cgadv::kernels().evaluate(evaluator_.get(), theta_.data(),
                                       subset ? positions_.data() : positions,
                                       box_of(data).data(), threads_,
                                       scale, subset ? forces_.data() : forces);
  } catch (const std::exception& error) {
    throw OpenMMException(std::string("CGPotentialForce: ") + error.what());
  }
  if (subset)
    for (std::size_t i = 0; i < particles_.size(); ++i)
      for (int c = 0; c < 3; ++c) forces[3 * particles_[i] + c] += forces_[3 * i + c];
  (*data.energyParameterDerivatives)[CGPotentialForce::Scale()] += energy;
  return scale * energy;
}

void HostCalcCGPotentialForceKernel::copyParametersToContext(ContextImpl&,
                                                             const CGPotentialForce& force) {
  theta_ = force.definition().theta;
}

void HostCalcCGPotentialForceKernel::forget() { cgadv::kernels().forget(evaluator_.get()); }

void HostIntegrateGeneralizedLangevinStepKernel::initialize(
    ContextImpl& context, const BeadIntegrator& base) {
  const auto& integrator = static_cast<const GeneralizedLangevinIntegrator&>(base);
  const System& system = context.getSystem();
  particles_ = system.getNumParticles();
  threads_ = threads_of(context);
  extra_ = integrator.size() - 1;
  for (int64_t type = 0; type < integrator.numTypes(); ++type) {
    first_.push_back(int64_t(beads_.size()));
    for (int i = 0; i < particles_; ++i)
      if (integrator.types()[i] == type && system.getParticleMass(i) > 0) {
        beads_.push_back(i);
        masses_.push_back(system.getParticleMass(i));
      }
  }
  first_.push_back(int64_t(beads_.size()));
  seed_ = integrator.getRandomNumberSeed();
  if (seed_ == 0) seed_ = osrngseed();
}

void HostIntegrateGeneralizedLangevinStepKernel::start() {
  // Steps draw the noise of replica 0.
  const int64_t n = int64_t(beads_.size()), C = 3 * (extra_ + 1);
  std::vector<double> noise(particles_ * C);
  cgadv::kernels().noise(seed_, 1, 0, 1, particles_, C, noise.data());
  z_.resize(3 * extra_ * n);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < 3 * extra_; ++c)
      z_[c * n + i] = std::sqrt(kT_ / masses_[i]) * noise[beads_[i] * C + 3 + c];
}

void HostIntegrateGeneralizedLangevinStepKernel::execute(
    ContextImpl& context, const BeadIntegrator& base) {
  const auto& integrator = static_cast<const GeneralizedLangevinIntegrator&>(base);
  auto& data = data_of(context);
  if (revision_ != integrator.revision() || dt_ != integrator.getStepSize()) {
    try {
      propagator(integrator.drift().data(), integrator.numTypes(), integrator.size(),
                 integrator.getStepSize(), E_, S_);
    } catch (const std::exception& error) {
      throw OpenMMException(std::string("GeneralizedLangevinIntegrator: ") + error.what());
    }
    revision_ = integrator.revision();
    dt_ = integrator.getStepSize();
    kT_ = KB * integrator.getTemperature();
  }
  if (extra_ > 0 && z_.empty()) start();
  LangevinArgs a{};
  a.n = int64_t(beads_.size()), a.beads = beads_.data();
  a.n_types = integrator.numTypes(), a.first = first_.data();
  a.masses = masses_.data(), a.extra = extra_, a.E = E_.data(), a.S = S_.data();
  a.kT = kT_, a.dt = dt_, a.seed = seed_, a.step = step_++, a.threads = threads_;
  try {
    cgadv::kernels().langevin_step(a, numbers_of(*data.positions), numbers_of(*data.velocities),
                                   numbers_of(*data.forces), z_.data());
  } catch (const std::exception& error) {
    throw OpenMMException("GeneralizedLangevinIntegrator: the simulation failed at step " +
                          std::to_string(data.stepCount + 1) + ": " + error.what());
  }
  data.time += dt_;
  ++data.stepCount;
}

double HostIntegrateGeneralizedLangevinStepKernel::computeKineticEnergy(ContextImpl& context) {
  return 0.5 * twice_kinetic(*data_of(context).velocities, beads_, masses_);
}

void HostIntegrateGeneralizedLangevinStepKernel::createCheckpoint(std::ostream& stream) const {
  const int64_t header[] = {1, seed_, step_, int64_t(z_.size())};
  write(stream, header, 4);
  write(stream, z_.data(), z_.size());
}

void HostIntegrateGeneralizedLangevinStepKernel::loadCheckpoint(std::istream& stream) {
  int64_t header[4];
  read(stream, header, 4);
  const int64_t expected = 3 * extra_ * int64_t(beads_.size());
  if (header[0] != 1 || (header[3] != 0 && header[3] != expected))
    throw OpenMMException("loadCheckpoint: found a checkpoint of another integrator, expected that "
                          "of a GeneralizedLangevinIntegrator with " +
                          std::to_string(expected) + " auxiliary variables");
  using Seed = std::numeric_limits<int32_t>;
  std::vector<double> z(header[3]);
  read(stream, z.data(), z.size());
  if (header[1] < Seed::min() || header[1] > Seed::max() || header[2] < 0 || !finite(z))
    throw OpenMMException("loadCheckpoint: found a seed, a count of steps or auxiliary variables "
                          "that no GeneralizedLangevinIntegrator has, expected a checkpoint that "
                          "nobody changed, of a simulation whose numbers are finite");
  seed_ = header[1], step_ = header[2];
  z_ = std::move(z);
}

void HostIntegrateGeneralizedLangevinStepKernel::serialize(SerializationNode& node) const {
  node.setStringProperty("auxiliary", text(auxiliary()));
}

void HostIntegrateGeneralizedLangevinStepKernel::deserialize(const SerializationNode& node) {
  if (!node.hasProperty("auxiliary"))
    throw OpenMMException("GeneralizedLangevinIntegrator: found parameters of another integrator "
                          "in the State, expected its own");
  if (node.getIntProperty("version") != 1)
    throw OpenMMException("GeneralizedLangevinIntegrator: found auxiliary variables of version " +
                          node.getStringProperty("version") + " in the State, expected 1");
  set_auxiliary(doubles(node.getStringProperty("auxiliary")));
}

// z (nm/ps) of all particles [particle][k][axis]; empty before the first step.
std::vector<double> HostIntegrateGeneralizedLangevinStepKernel::auxiliary() const {
  if (z_.empty()) return {};
  const int64_t n = int64_t(beads_.size()), C = 3 * extra_;
  std::vector<double> z(particles_ * C, 0.0);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < C; ++c) z[beads_[i] * C + c] = z_[c * n + i];
  return z;
}

void HostIntegrateGeneralizedLangevinStepKernel::set_auxiliary(
    const std::vector<double>& z) {
  const int64_t n = int64_t(beads_.size()), C = 3 * extra_;
  if (z.empty()) {
    z_.clear();
    return;
  }
  if (int64_t(z.size()) != particles_ * C)
    throw OpenMMException("GeneralizedLangevinIntegrator: found " + std::to_string(z.size()) +
                          " auxiliary variables, expected " + std::to_string(particles_ * C));
  if (!finite(z))
    throw OpenMMException("GeneralizedLangevinIntegrator: found auxiliary variables in the State "
                          "that are not finite, expected numbers");
  z_.resize(C * n);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < C; ++c) z_[c * n + i] = z[beads_[i] * C + c];
}

KernelImpl* HostKernelFactory::createKernelImpl(std::string name, const Platform& platform,
                                                ContextImpl&) const {
  if (name == CalcCGPotentialForceKernel::Name())
    return new HostCalcCGPotentialForceKernel(name, platform);
  if (name == GeneralizedLangevinIntegrator::Kernel())
    return new HostIntegrateGeneralizedLangevinStepKernel(name, platform);
  if (name == PairFrictionIntegrator::Kernel())
    return new HostIntegratePairFrictionStepKernel(name, platform);
  throw OpenMMException("Tried to create a kernel that openmm_cgadv does not have: " + name);
}

}  // namespace cgadv
