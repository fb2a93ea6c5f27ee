// Lists of numbers: as text, the same in every locale and exact for doubles; whether they are finite.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <locale>
#include <sstream>
#include <string>
#include <vector>

#include "openmm/OpenMMException.h"

namespace cgadv {

template <class T>
std::string text(const std::vector<T>& numbers) {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  out.precision(17);
  for (std::size_t k = 0; k < numbers.size(); ++k) out << (k > 0 ? " " : "") << numbers[k];
  return out.str();
}

template <class T>
std::vector<T> numbers(const std::string& text) {
  std::istringstream in(text);
  in.imbue(std::locale::classic());
  std::vector<T> found;
  for (T x; in >> x;) found.push_back(x);
  if (!in.eof()) throw OpenMM::OpenMMException("found '" + text.substr(0, 40) + "', expected numbers");
  return found;
}

inline std::vector<double> doubles(const std::string& text) { return numbers<double>(text); }
inline std::vector<int64_t> integers(const std::string& text) { return numbers<int64_t>(text); }

inline bool finite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
}

}  // namespace cgadv
