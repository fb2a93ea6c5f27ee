#include "integrator.hpp"

namespace cgadv {

GeneralizedLangevinIntegrator::GeneralizedLangevinIntegrator(std::vector<double> drift,
                                                             int64_t n_types,
                                                             std::vector<int64_t> types,
                                                             double temperature, double stepSize)
    : BeadIntegrator("GeneralizedLangevinIntegrator", Kernel(), n_types, std::move(types),
                     temperature, stepSize),
      drift_(std::move(drift)), n_types_(n_types), size_(0) {
  while (n_types_ > 0 && n_types_ * size_ * size_ < int64_t(drift_.size())) ++size_;
  if (size_ < 1 || n_types_ * size_ * size_ != int64_t(drift_.size()))
    refuse("found a drift of " + std::to_string(drift_.size()) + " numbers for " +
           std::to_string(n_types_) + " types, expected a square matrix for each type");
}

void GeneralizedLangevinIntegrator::setDrift(std::vector<double> drift) {
  if (drift.size() != drift_.size())
    refuse("found a drift of " + std::to_string(drift.size()) + " numbers, expected " +
           std::to_string(drift_.size()));
  drift_ = std::move(drift);
  changed();
}

}  // namespace cgadv
