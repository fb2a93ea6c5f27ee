#include "serialization.hpp"

#include <algorithm>

#include "../kernels/kernels.hpp"
#include "force.hpp"
#include "integrator.hpp"
#include "numbers.hpp"
#include "openmm/serialization/SerializationNode.h"
#include "openmm/serialization/SerializationProxy.h"
#include "pair_integrator.hpp"

using namespace OpenMM;

namespace cgadv {

namespace {

constexpr int VERSION = 1;

void check_version(const SerializationNode& node, int newest = VERSION) {
  const int version = node.getIntProperty("version");
  if (version < VERSION || version > newest)
    throw OpenMMException(node.getStringProperty("type") + ": found version " +
                          std::to_string(version) + ", expected " + std::to_string(newest) +
                          (version > newest ? "; install a newer openmm_cgadv" : ""));
}

// Of a CGPotentialForce whose integers are in the tagged form of core/terms/packed.hpp; those read from
// files of before keep theirs.
constexpr int TAGGED = 2;

class ForceProxy : public SerializationProxy {
 public:
  ForceProxy() : SerializationProxy("CGPotentialForce") {}

  void serialize(const void* object, SerializationNode& node) const override {
    const auto& force = *static_cast<const CGPotentialForce*>(object);
    const auto& d = force.definition();
    node.setIntProperty("version", d.ints[0] == PACKED_FORMAT ? TAGGED : VERSION);
    node.setStringProperty("name", force.getName());
    node.setIntProperty("forceGroup", force.getForceGroup());
    node.setStringProperty("precision", d.single_precision ? "single" : "double");
    node.createChildNode("Potential")
        .setStringProperty("integers", text(d.ints))
        .setStringProperty("numbers", text(d.floats))
        .setStringProperty("parameters", text(d.theta))
        .setStringProperty("description", d.description);
    auto& beads = node.createChildNode("Beads");
    beads.setStringProperty("types", text(d.types));
    if (!d.particles.empty()) beads.setStringProperty("particles", text(d.particles));
    if (!d.exclusions.empty()) beads.setStringProperty("exclusions", text(d.exclusions));
  }

  void* deserialize(const SerializationNode& node) const override {
    check_version(node, TAGGED);
    const auto& potential = node.getChildNode("Potential");
    const auto& beads = node.getChildNode("Beads");
    const std::string precision = node.getStringProperty("precision", "single");
    if (precision != "single" && precision != "double")
      throw OpenMMException("CGPotentialForce: found precision '" + precision +
                            "', expected single or double");
    CGPotentialForce::Definition d;
    d.ints = integers(potential.getStringProperty("integers"));
    d.floats = doubles(potential.getStringProperty("numbers"));
    d.theta = doubles(potential.getStringProperty("parameters"));
    d.description = potential.getStringProperty("description", "");
    d.types = integers(beads.getStringProperty("types"));
    d.particles = integers(beads.getStringProperty("particles", ""));
    d.exclusions = integers(beads.getStringProperty("exclusions", ""));
    d.single_precision = precision == "single";
    auto* force = new CGPotentialForce(std::move(d));
    force->setName(node.getStringProperty("name", force->getName()));
    force->setForceGroup(node.getIntProperty("forceGroup", 0));
    return static_cast<Force*>(force);
  }
};

void serialize_common(const BeadIntegrator& integrator, SerializationNode& node) {
  node.setIntProperty("version", VERSION);
  node.setDoubleProperty("stepSize", integrator.getStepSize());
  node.setDoubleProperty("constraintTolerance", integrator.getConstraintTolerance());
  node.setIntProperty("integrationForceGroups", integrator.getIntegrationForceGroups());
  node.setDoubleProperty("temperature", integrator.getTemperature());
  node.setIntProperty("randomSeed", integrator.getRandomNumberSeed());
  node.createChildNode("Beads").setStringProperty("types", text(integrator.types()));
}

void deserialize_common(BeadIntegrator& integrator, const SerializationNode& node) {
  integrator.setConstraintTolerance(node.getDoubleProperty("constraintTolerance", 1e-5));
  integrator.setIntegrationForceGroups(
      node.getIntProperty("integrationForceGroups", int(0xFFFFFFFF)));
  integrator.setRandomNumberSeed(node.getIntProperty("randomSeed", 0));
}

class IntegratorProxy : public SerializationProxy {
 public:
  IntegratorProxy() : SerializationProxy("GeneralizedLangevinIntegrator") {}

  void serialize(const void* object, SerializationNode& node) const override {
    const auto& integrator = *static_cast<const GeneralizedLangevinIntegrator*>(object);
    node.createChildNode("Drift")
        .setLongProperty("types", integrator.numTypes())
        .setStringProperty("matrices", text(integrator.drift()));
    serialize_common(integrator, node);
  }

  void* deserialize(const SerializationNode& node) const override {
    check_version(node);
    const auto& drift = node.getChildNode("Drift");
    auto* integrator = new GeneralizedLangevinIntegrator(
        doubles(drift.getStringProperty("matrices")), drift.getLongProperty("types"),
        integers(node.getChildNode("Beads").getStringProperty("types")),
        node.getDoubleProperty("temperature"), node.getDoubleProperty("stepSize"));
    deserialize_common(*integrator, node);
    return static_cast<Integrator*>(integrator);
  }
};

// Of a PairFrictionIntegrator where beads have friction of their own: others are still for plugins
// that don't know of it.
constexpr int WITH_SELF = 2;

class PairIntegratorProxy : public SerializationProxy {
 public:
  PairIntegratorProxy() : SerializationProxy("PairFrictionIntegrator") {}

  void serialize(const void* object, SerializationNode& node) const override {
    const auto& integrator = *static_cast<const PairFrictionIntegrator*>(object);
    const auto& f = integrator.friction();
    node.setStringProperty("needs", "the OpenMM plugin of openmm_cgadv: import openmm_cgadv");
    node.setDoubleProperty("tolerance", integrator.getTolerance());
    auto& friction = node.createChildNode("PairFriction");
    friction.setLongProperty("types", f.n_types)
        .setLongProperty("auxiliary", f.extra)
        .setDoubleProperty("rCut", f.r_cut)
        .setStringProperty("rMin", text(f.r_min))
        .setStringProperty("splines", text(f.splines))
        .setStringProperty("memory", text(f.memory));
    const bool with_self = std::any_of(f.self.begin(), f.self.end(), [](double g) { return g > 0; });
    if (with_self) friction.setStringProperty("self", text(f.self));
    serialize_common(integrator, node);  // which moves the node of the friction
    if (with_self) node.setIntProperty("version", WITH_SELF);
  }

  void* deserialize(const SerializationNode& node) const override {
    check_version(node, WITH_SELF);
    const auto& from = node.getChildNode("PairFriction");
    PairFrictionIntegrator::Friction f;
    f.n_types = from.getLongProperty("types");
    f.extra = from.getLongProperty("auxiliary");
    f.r_cut = from.getDoubleProperty("rCut");
    f.r_min = doubles(from.getStringProperty("rMin"));
    f.splines = doubles(from.getStringProperty("splines"));
    f.memory = doubles(from.getStringProperty("memory"));
    f.self = from.hasProperty("self") ? doubles(from.getStringProperty("self"))
                                      : std::vector<double>(f.n_types, 0.0);
    auto* integrator = new PairFrictionIntegrator(
        std::move(f), integers(node.getChildNode("Beads").getStringProperty("types")),
        node.getDoubleProperty("temperature"), node.getDoubleProperty("stepSize"),
        node.getDoubleProperty("tolerance"));
    deserialize_common(*integrator, node);
    return static_cast<Integrator*>(integrator);
  }
};

}  // namespace

void registerProxies() {
  static const ForceProxy force;
  static const IntegratorProxy integrator;
  static const PairIntegratorProxy pair_integrator;
  SerializationProxy::registerProxy(typeid(CGPotentialForce), &force);
  SerializationProxy::registerProxy(typeid(GeneralizedLangevinIntegrator), &integrator);
  SerializationProxy::registerProxy(typeid(PairFrictionIntegrator), &pair_integrator);
}

}  // namespace cgadv
