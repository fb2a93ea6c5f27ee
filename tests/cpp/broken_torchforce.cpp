// An OpenMM plugin library as one that was built for another OpenMM: it loads, registers TorchForce
// for the platforms PLATFORMS, and needs a function that OpenMM lacks when a Context is made.
#include "openmm/Context.h"
#include "openmm/KernelFactory.h"
#include "openmm/Platform.h"

namespace OpenMM {
void functionOfAnotherVersion();

class BrokenFactory : public KernelFactory {
 public:
  KernelImpl* createKernelImpl(std::string, const Platform&, ContextImpl&) const override {
    functionOfAnotherVersion();
    return nullptr;
  }
};
}  // namespace OpenMM

extern "C" __attribute__((visibility("default"))) void registerPlatforms() {}

extern "C" __attribute__((visibility("default"))) void registerKernelFactories() {
  for (const char* name : {PLATFORMS}) {
    try {
      OpenMM::Platform& platform = OpenMM::Platform::getPlatformByName(name);
      platform.registerKernelFactory("CalcTorchForce", new OpenMM::BrokenFactory());
    } catch (...) {
      // A machine without this platform.
    }
  }
}
