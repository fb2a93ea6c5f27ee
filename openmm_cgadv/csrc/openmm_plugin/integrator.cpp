#include "integrator.hpp"

#include <cmath>

#include "force.hpp"
#include "kernels.hpp"
#include "numbers.hpp"
#include "openmm/Context.h"
#include "openmm/OpenMMException.h"
#include "openmm/System.h"
#include "openmm/serialization/SerializationNode.h"

using namespace OpenMM;

namespace cgadv {

namespace {

[[noreturn]] void refuse(const std::string& sentence) {
  throw OpenMMException("GeneralizedLangevinIntegrator: " + sentence);
}

}  // namespace

GeneralizedLangevinIntegrator::GeneralizedLangevinIntegrator(std::vector<double> drift,
                                                             int64_t n_types,
                                                             std::vector<int64_t> types,
                                                             double temperature, double stepSize)
    : drift_(std::move(drift)), n_types_(n_types), size_(0), types_(std::move(types)) {
  while (n_types_ > 0 && n_types_ * size_ * size_ < int64_t(drift_.size())) ++size_;
  if (size_ < 1 || n_types_ * size_ * size_ != int64_t(drift_.size()))
    refuse("found a drift of " + std::to_string(drift_.size()) + " numbers for " +
           std::to_string(n_types_) + " types, expected a square matrix for each type");
  for (const int64_t type : types_)
    if (type < 0 || type >= n_types_)
      refuse("found type " + std::to_string(type) + ", expected numbers below " +
             std::to_string(n_types_));
  setTemperature(temperature);
  setStepSize(stepSize);
  setConstraintTolerance(1e-5);
}

void GeneralizedLangevinIntegrator::setTemperature(double temperature) {
  if (!(temperature >= 0 && std::isfinite(temperature)))
    refuse("found a temperature of " + std::to_string(temperature) + " K, expected 0 K or more");
  temperature_ = temperature;
  ++revision_;
}

void GeneralizedLangevinIntegrator::setDrift(std::vector<double> drift) {
  if (drift.size() != drift_.size())
    refuse("found a drift of " + std::to_string(drift.size()) + " numbers, expected " +
           std::to_string(drift_.size()));
  drift_ = std::move(drift);
  ++revision_;
}

void GeneralizedLangevinIntegrator::initialize(ContextImpl& contextRef) {
  if (owner != nullptr && &contextRef.getOwner() != owner)
    throw OpenMMException("This Integrator is already bound to a context");
  const System& system = contextRef.getSystem();
  const int particles = system.getNumParticles();
  if (int64_t(types_.size()) != particles)
    refuse("found types of " + std::to_string(types_.size()) + " beads, expected " +
           std::to_string(particles) + ", one for each particle of the System");
  if (system.getNumConstraints() > 0)
    refuse("found " + std::to_string(system.getNumConstraints()) +
           " constraints in the System, expected none, for they do not go with memory");
  for (int i = 0; i < particles; ++i)
    if (system.isVirtualSite(i))
      refuse("found that particle " + std::to_string(i) +
             " is a virtual site, expected beads that move by themselves");
  context = &contextRef;
  owner = &contextRef.getOwner();
  kernel_ = context->getPlatform().createKernel(IntegrateGeneralizedLangevinStepKernel::Name(),
                                                contextRef);
  kernel_.getAs<IntegrateGeneralizedLangevinStepKernel>().initialize(contextRef, *this);
}

void GeneralizedLangevinIntegrator::cleanup() { kernel_ = Kernel(); }

std::vector<std::string> GeneralizedLangevinIntegrator::getKernelNames() {
  return {IntegrateGeneralizedLangevinStepKernel::Name()};
}

void GeneralizedLangevinIntegrator::step(int steps) {
  if (context == nullptr) throw OpenMMException("This Integrator is not bound to a context!");
  for (int i = 0; i < steps; ++i) {
    context->updateContextState();
    context->calcForcesAndEnergy(true, false, getIntegrationForceGroups());
    kernel_.getAs<IntegrateGeneralizedLangevinStepKernel>().execute(*context, *this);
  }
}

double GeneralizedLangevinIntegrator::computeKineticEnergy() {
  return kernel_.getAs<IntegrateGeneralizedLangevinStepKernel>().computeKineticEnergy(*context);
}

// Forces of a run that goes on and of one that starts from its checkpoint are then the same bits.
void GeneralizedLangevinIntegrator::forgetForces() const {
  for (ForceImpl* impl : context->getForceImpls())
    if (auto* ours = dynamic_cast<CGPotentialForceImpl*>(impl)) ours->forget();
}

void GeneralizedLangevinIntegrator::createCheckpoint(std::ostream& stream) const {
  forgetForces();
  kernel_.getAs<const IntegrateGeneralizedLangevinStepKernel>().createCheckpoint(stream);
}

void GeneralizedLangevinIntegrator::loadCheckpoint(std::istream& stream) {
  forgetForces();
  kernel_.getAs<IntegrateGeneralizedLangevinStepKernel>().loadCheckpoint(stream);
}

void GeneralizedLangevinIntegrator::serializeParameters(SerializationNode& node) const {
  const auto z = kernel_.getAs<const IntegrateGeneralizedLangevinStepKernel>().getAuxiliary();
  node.setIntProperty("version", 1);
  node.setStringProperty("auxiliary", text(z));
}

void GeneralizedLangevinIntegrator::deserializeParameters(const SerializationNode& node) {
  // A State of an integrator without parameters, such as LangevinMiddleIntegrator, has none here.
  if (node.getProperties().empty() && node.getChildren().empty()) return;
  if (!node.hasProperty("auxiliary"))
    refuse("found parameters of another integrator in the State, expected its own");
  if (node.getIntProperty("version") != 1)
    refuse("found auxiliary variables of version " + node.getStringProperty("version") +
           " in the State, expected 1");
  kernel_.getAs<IntegrateGeneralizedLangevinStepKernel>().setAuxiliary(
      doubles(node.getStringProperty("auxiliary")));
}

}  // namespace cgadv
