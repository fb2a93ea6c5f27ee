// The build of the core for this processor, from a file next to the library that asks for it.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace cgadv {

// The environment variable CGADV_KERNELS names another build than the best one.
inline const KernelTable& kernels() {
  static const char anchor = 0;
  static const KernelTable* const table = [] {
    Dl_info here;
    if (dladdr(&anchor, &here) == 0)
      throw std::runtime_error("cannot tell where the kernel library lies");
    std::string folder(here.dli_fname);
    folder.erase(folder.find_last_of('/') + 1);
    std::vector<std::string> names;
    if (const char* wanted = std::getenv("CGADV_KERNELS")) {
      names.push_back(wanted);
    } else {
#if defined(__x86_64__)
      __builtin_cpu_init();
      const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi2");
      if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl"))
        names.push_back("x86_64_v4");
      if (v3) names.push_back("x86_64_v3");
      names.push_back("x86_64_v2");
#endif
      names.push_back("baseline");
    }
    std::string tried;
    for (const auto& name : names) {
      const std::string path = folder + "libcgadv_kernels_" + name + ".so";
      if (void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
        using Entry = const KernelTable* (*)();
        if (auto entry = reinterpret_cast<Entry>(dlsym(handle, "cgadv_kernels"))) return entry();
      }
      tried += tried.empty() ? path : ", " + path;
    }
    throw std::runtime_error("no kernel library could be loaded, tried " + tried);
  }();
  return *table;
}

}  // namespace cgadv
