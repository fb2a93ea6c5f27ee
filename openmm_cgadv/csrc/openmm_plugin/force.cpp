#include "force.hpp"

#include "../kernels/choose.hpp"
#include "kernels.hpp"
#include "openmm/OpenMMException.h"
#include "openmm/System.h"
#include "openmm/internal/ContextImpl.h"

using namespace OpenMM;

namespace cgadv {

namespace {

[[noreturn]] void refuse(const std::string& sentence) {
  throw OpenMMException("CGPotentialForce: " + sentence);
}

std::string count(std::size_t n) { return std::to_string(n); }

}  // namespace

CGPotentialForce::CGPotentialForce(Definition definition) : definition_(std::move(definition)) {
  const Definition& d = definition_;
  setName("CGPotentialForce");
  PotentialArgs a{};
  a.ints = d.ints.data(), a.n_ints = int64_t(d.ints.size());
  a.floats = d.floats.data(), a.n_floats = int64_t(d.floats.size());
  int64_t expected = 0;
  try {
    expected = cgadv::kernels().n_parameters(a, nullptr);
  } catch (const std::exception& error) {
    refuse(error.what());
  }
  if (int64_t(d.theta.size()) != expected)
    refuse("found " + count(d.theta.size()) + " parameters, expected " + count(expected));
  if (!d.particles.empty() && d.particles.size() != d.types.size())
    refuse("found " + count(d.particles.size()) + " particles, expected " +
           count(d.types.size()) + ", one for each bead");
  if (d.exclusions.size() % 2 != 0)
    refuse("found " + count(d.exclusions.size()) + " beads in the exclusions, expected pairs");
}

void CGPotentialForce::setParameters(std::vector<double> theta) {
  if (theta.size() != definition_.theta.size())
    refuse("found " + count(theta.size()) + " parameters, expected " +
           count(definition_.theta.size()));
  definition_.theta = std::move(theta);
}

void CGPotentialForce::updateParametersInContext(Context& context) {
  dynamic_cast<CGPotentialForceImpl&>(getImplInContext(context))
      .updateParametersInContext(getContextImpl(context));
}

ForceImpl* CGPotentialForce::createImpl() const { return new CGPotentialForceImpl(*this); }

CGPotentialForceImpl::CGPotentialForceImpl(const CGPotentialForce& owner) : owner_(owner) {
  forceGroup = owner.getForceGroup();
}

void CGPotentialForceImpl::initialize(ContextImpl& context) {
  const auto& d = owner_.definition();
  const std::size_t particles = context.getSystem().getNumParticles();
  if (d.particles.empty() && d.types.size() != particles)
    refuse("found types of " + count(d.types.size()) + " beads, expected " + count(particles) +
           ", one for each particle of the System");
  std::vector<bool> taken(particles, false);
  for (const int64_t p : d.particles) {
    if (p < 0 || p >= int64_t(particles) || taken[p])
      refuse("found particle " + std::to_string(p) + ", expected each number below " +
             count(particles) + " at most once");
    taken[p] = true;
  }
  kernel_ = context.getPlatform().createKernel(CalcCGPotentialForceKernel::Name(), context);
  kernel_.getAs<CalcCGPotentialForceKernel>().initialize(context, owner_);
}

double CGPotentialForceImpl::calcForcesAndEnergy(ContextImpl& context, bool includeForces,
                                                 bool includeEnergy, int groups) {
  if ((groups & (1 << forceGroup)) == 0) return 0;
  return kernel_.getAs<CalcCGPotentialForceKernel>().execute(context, includeForces,
                                                             includeEnergy);
}

std::map<std::string, double> CGPotentialForceImpl::getDefaultParameters() {
  return {{CGPotentialForce::Scale(), 1.0}};
}

std::vector<std::string> CGPotentialForceImpl::getKernelNames() {
  return {CalcCGPotentialForceKernel::Name()};
}

void CGPotentialForceImpl::updateParametersInContext(ContextImpl& context) {
  kernel_.getAs<CalcCGPotentialForceKernel>().copyParametersToContext(context, owner_);
  context.systemChanged();
}

void CGPotentialForceImpl::forget() { kernel_.getAs<CalcCGPotentialForceKernel>().forget(); }

}  // namespace cgadv
