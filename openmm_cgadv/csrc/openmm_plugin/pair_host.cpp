#include "pair_host.hpp"

#include <limits>

#include "host_data.hpp"
#include "numbers.hpp"
#include "openmm/System.h"
#include "openmm/internal/OSRngSeed.h"
#include "openmm/serialization/SerializationNode.h"
#include "pair_integrator.hpp"

using namespace OpenMM;

namespace cgadv {

namespace {

constexpr int64_t CHECKPOINT = 2;  // other integrators' checkpoints begin with other numbers

[[noreturn]] void refuse(const std::string& sentence) {
  throw OpenMMException("PairFrictionIntegrator: " + sentence);
}

}  // namespace

void HostIntegratePairFrictionStepKernel::initialize(ContextImpl& context,
                                                     const BeadIntegrator& integrator) {
  const System& system = context.getSystem();
  threads_ = threads_of(context);
  for (int i = 0; i < system.getNumParticles(); ++i)
    if (system.getParticleMass(i) > 0) {
      beads_.push_back(i);
      types_.push_back(integrator.types()[i]);
      masses_.push_back(system.getParticleMass(i));
    }
  seed_ = integrator.getRandomNumberSeed();
  if (seed_ == 0) seed_ = osrngseed();
  configure(static_cast<const PairFrictionIntegrator&>(integrator));
}

void HostIntegratePairFrictionStepKernel::configure(const PairFrictionIntegrator& integrator) {
  const auto& f = integrator.friction();
  n_types_ = f.n_types, extra_ = f.extra;
  dt_ = integrator.getStepSize();
  revision_ = integrator.revision();
  PairFrictionArgs a{};
  a.extra = f.extra, a.n_basis = f.n_basis(), a.r_cut = f.r_cut;
  a.r_min = f.r_min.data(), a.splines = f.splines.data(), a.memory = f.memory.data();
  a.self = f.self.data();
  a.kT = KB * integrator.getTemperature(), a.dt = dt_, a.tolerance = integrator.getTolerance();
  if (stepper_)
    stepper_->configure(a);
  else
    stepper_.reset(kernels().make_pair_stepper(int64_t(beads_.size()), beads_.data(), n_types_,
                                      types_.data(), masses_.data(), a));
}

void HostIntegratePairFrictionStepKernel::execute(ContextImpl& context,
                                                  const BeadIntegrator& integrator) {
  auto& data = data_of(context);
  if (revision_ != integrator.revision() || dt_ != integrator.getStepSize())
    configure(static_cast<const PairFrictionIntegrator&>(integrator));
  try {
    stepper_->step(seed_, step_, box_of(data).data(), threads_, numbers_of(*data.positions),
                 numbers_of(*data.velocities), numbers_of(*data.forces));
  } catch (const std::exception& error) {
    refuse("the simulation failed at step " + std::to_string(data.stepCount + 1) + ": " +
           error.what());
  }
  ++step_;
  data.time += dt_;
  ++data.stepCount;
}

double HostIntegratePairFrictionStepKernel::computeKineticEnergy(ContextImpl& context) {
  return 0.5 * twice_kinetic(*data_of(context).velocities, beads_, masses_);
}

HostIntegratePairFrictionStepKernel::Pairs HostIntegratePairFrictionStepKernel::settle() const {
  Pairs pairs;
  stepper_->read(pairs.beads, pairs.auxiliary);
  stepper_->write(pairs.beads, pairs.auxiliary);
  return pairs;
}

bool HostIntegratePairFrictionStepKernel::valid(const Pairs& pairs, int64_t step) const {
  if (step < 0 || pairs.beads.size() % 2 != 0 ||
      pairs.auxiliary.size() != pairs.beads.size() / 2 * 3 * extra_ || !finite(pairs.auxiliary))
    return false;
  const std::vector<int32_t>& b = pairs.beads;
  for (std::size_t k = 0; k < b.size(); k += 2) {
    if (b[k] < 0 || b[k + 1] <= b[k] || b[k + 1] >= int32_t(beads_.size())) return false;
    if (k > 0 && (b[k] < b[k - 2] || (b[k] == b[k - 2] && b[k + 1] <= b[k - 1]))) return false;
  }
  return true;
}

void HostIntegratePairFrictionStepKernel::createCheckpoint(std::ostream& stream) const {
  const Pairs pairs = settle();
  const int64_t header[] = {CHECKPOINT, seed_, step_, extra_, int64_t(beads_.size()),
                            int64_t(pairs.beads.size()) / 2};
  write(stream, header, 6);
  write(stream, pairs.beads.data(), pairs.beads.size());
  write(stream, pairs.auxiliary.data(), pairs.auxiliary.size());
}

void HostIntegratePairFrictionStepKernel::loadCheckpoint(std::istream& stream) {
  int64_t header[6];
  read(stream, header, 1);
  // Another integrator's may be shorter.
  if (header[0] == CHECKPOINT) read(stream, header + 1, 5);
  const int64_t n = int64_t(beads_.size()), count = header[5];
  if (header[0] != CHECKPOINT || header[3] != extra_ || header[4] != n)
    throw OpenMMException("loadCheckpoint: found a checkpoint of another integrator, expected that "
                          "of a PairFrictionIntegrator with " + std::to_string(extra_) +
                          " auxiliary vectors a pair, for " + std::to_string(n) + " beads");
  using Seed = std::numeric_limits<int32_t>;
  const bool sane = header[1] >= Seed::min() && header[1] <= Seed::max() && count >= 0 &&
                    count <= n * (n - 1) / 2;
  Pairs pairs;
  if (sane) {
    pairs.beads.resize(2 * count);
    read(stream, pairs.beads.data(), pairs.beads.size());
    pairs.auxiliary.resize(count * 3 * extra_);
    read(stream, pairs.auxiliary.data(), pairs.auxiliary.size());
  }
  if (!sane || !valid(pairs, header[2]))
    throw OpenMMException("loadCheckpoint: found a seed, a count of steps, pairs or auxiliary "
                          "variables that no PairFrictionIntegrator has, expected a checkpoint "
                          "that nobody changed, of a simulation whose numbers are finite");
  seed_ = header[1], step_ = header[2];
  stepper_->write(pairs.beads, pairs.auxiliary);
}

void HostIntegratePairFrictionStepKernel::serialize(SerializationNode& node) const {
  const Pairs pairs = settle();
  node.setLongProperty("step", step_);
  node.setStringProperty("pairs", text(pairs.beads));
  node.setStringProperty("pairAuxiliary", text(pairs.auxiliary));
}

void HostIntegratePairFrictionStepKernel::deserialize(const SerializationNode& node) {
  if (!node.hasProperty("pairs"))
    refuse("found parameters of another integrator in the State, expected its own");
  if (node.getIntProperty("version") != 1)
    refuse("found pairs of version " + node.getStringProperty("version") +
           " in the State, expected 1");
  const Pairs pairs{numbers<int32_t>(node.getStringProperty("pairs")),
                    doubles(node.getStringProperty("pairAuxiliary"))};
  const int64_t step = node.getLongProperty("step");
  if (!valid(pairs, step))
    refuse("found a count of steps, pairs or auxiliary variables in the State that do not go with "
           "the " + std::to_string(beads_.size()) + " beads of this System and " +
           std::to_string(extra_) + " auxiliary vectors a pair");
  step_ = step;
  stepper_->write(pairs.beads, pairs.auxiliary);
}

}  // namespace cgadv
