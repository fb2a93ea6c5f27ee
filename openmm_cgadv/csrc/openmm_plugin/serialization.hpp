// The XML of the Force and the Integrator; the only place that knows its format.
#pragma once

namespace cgadv {

void registerProxies();

}  // namespace cgadv
