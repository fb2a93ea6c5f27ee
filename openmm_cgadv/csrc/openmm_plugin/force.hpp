// The learned energy as an OpenMM Force.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "openmm/Context.h"
#include "openmm/Force.h"
#include "openmm/Kernel.h"
#include "openmm/internal/ForceImpl.h"

namespace cgadv {

// Energy U of beads: pair splines and three-body density correlations, in kJ/mol. The Context's
// global parameter `cgadv_scale` multiplies energy and forces; State offers the energy's
// derivative with respect to it.
//
// Beads are counted from 0. Without `particles` they are the System's particles.
class CGPotentialForce : public OpenMM::Force {
 public:
  struct Definition {
    std::vector<int64_t> ints;        // the potential, packed as in openmm_cgadv/kernels.py
    std::vector<double> floats;
    std::vector<double> theta;        // parameters (kJ/mol)
    std::vector<int64_t> types;       // of each bead
    std::vector<int64_t> particles;   // of each bead, or none at all
    std::vector<int64_t> exclusions;  // pairs of beads that are no neighbours, flat
    bool single_precision = true;     // arithmetic on the CPU platform; Reference has double
    std::string description;          // for readers of the XML; nothing here depends on it
  };

  static const std::string& Scale() {
    static const std::string name = "cgadv_scale";
    return name;
  }

  explicit CGPotentialForce(Definition definition);

  const Definition& definition() const { return definition_; }
  void setParameters(std::vector<double> theta);
  // Copies the parameters, and nothing else, into a Context that has this force.
  void updateParametersInContext(OpenMM::Context& context);
  bool usesPeriodicBoundaryConditions() const override { return true; }

 protected:
  OpenMM::ForceImpl* createImpl() const override;

 private:
  Definition definition_;
};

class CGPotentialForceImpl : public OpenMM::ForceImpl {
 public:
  explicit CGPotentialForceImpl(const CGPotentialForce& owner);
  void initialize(OpenMM::ContextImpl& context) override;
  const CGPotentialForce& getOwner() const override { return owner_; }
  void updateContextState(OpenMM::ContextImpl&, bool&) override {}
  double calcForcesAndEnergy(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy,
                             int groups) override;
  std::map<std::string, double> getDefaultParameters() override;
  std::vector<std::string> getKernelNames() override;
  void updateParametersInContext(OpenMM::ContextImpl& context);
  // After it forces do not depend on what was computed before.
  void forget();

 private:
  const CGPotentialForce& owner_;
  OpenMM::Kernel kernel_;
};

}  // namespace cgadv
