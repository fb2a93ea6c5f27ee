#include "bead_integrator.hpp"

#include <cmath>

#include "force.hpp"
#include "kernels.hpp"
#include "openmm/Context.h"
#include "openmm/OpenMMException.h"
#include "openmm/System.h"
#include "openmm/serialization/SerializationNode.h"

using namespace OpenMM;

namespace cgadv {

BeadIntegrator::BeadIntegrator(std::string name, std::string kernel, int64_t n_types,
                               std::vector<int64_t> types, double temperature, double stepSize)
    : name_(std::move(name)), kernel_name_(std::move(kernel)), types_(std::move(types)) {
  for (const int64_t type : types_)
    if (type < 0 || type >= n_types)
      refuse("found type " + std::to_string(type) + ", expected numbers below " +
             std::to_string(n_types));
  setTemperature(temperature);
  setStepSize(stepSize);
  setConstraintTolerance(1e-5);
}

void BeadIntegrator::refuse(const std::string& sentence) const {
  throw OpenMMException(name_ + ": " + sentence);
}

void BeadIntegrator::setTemperature(double temperature) {
  if (!(temperature >= 0 && std::isfinite(temperature)))
    refuse("found a temperature of " + std::to_string(temperature) + " K, expected 0 K or more");
  temperature_ = temperature;
  changed();
}

void BeadIntegrator::initialize(ContextImpl& contextRef) {
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
  kernel_ = context->getPlatform().createKernel(kernel_name_, contextRef);
  kernel_.getAs<IntegrateBeadStepKernel>().initialize(contextRef, *this);
}

void BeadIntegrator::cleanup() { kernel_ = Kernel(); }

Kernel& BeadIntegrator::kernel() {
  if (context == nullptr) throw OpenMMException("This Integrator is not bound to a context!");
  return kernel_;
}

void BeadIntegrator::step(int steps) {
  kernel();
  for (int i = 0; i < steps; ++i) {
    context->updateContextState();
    context->calcForcesAndEnergy(true, false, getIntegrationForceGroups());
    kernel_.getAs<IntegrateBeadStepKernel>().execute(*context, *this);
  }
}

double BeadIntegrator::computeKineticEnergy() {
  return kernel_.getAs<IntegrateBeadStepKernel>().computeKineticEnergy(*context);
}

// Forces of a run that goes on and of one that starts from its checkpoint are then the same bits.
void BeadIntegrator::forgetForces() const {
  for (ForceImpl* impl : context->getForceImpls())
    if (auto* ours = dynamic_cast<CGPotentialForceImpl*>(impl)) ours->forget();
}

void BeadIntegrator::createCheckpoint(std::ostream& stream) const {
  forgetForces();
  kernel_.getAs<const IntegrateBeadStepKernel>().createCheckpoint(stream);
}

void BeadIntegrator::loadCheckpoint(std::istream& stream) {
  forgetForces();
  kernel_.getAs<IntegrateBeadStepKernel>().loadCheckpoint(stream);
}

void BeadIntegrator::serializeParameters(SerializationNode& node) const {
  forgetForces();
  node.setIntProperty("version", 1);
  kernel_.getAs<const IntegrateBeadStepKernel>().serialize(node);
}

void BeadIntegrator::deserializeParameters(const SerializationNode& node) {
  // A State of an integrator without parameters, such as LangevinMiddleIntegrator, has none here.
  if (node.getProperties().empty() && node.getChildren().empty()) return;
  forgetForces();
  kernel_.getAs<IntegrateBeadStepKernel>().deserialize(node);
}

}  // namespace cgadv
