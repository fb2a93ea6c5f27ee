// Gaussian noise that is looked up rather than drawn: a function of who, when and which.
//
// Philox4x32-10 (Salmon et al., SC11, 2011) under the seed, then Box-Muller in single precision.
// Block b holds components 4 b .. 4 b + 3. Nothing is stored to replay it, and neither threads nor
// the order of beads change it.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

// Counters that are worked on together.
constexpr int NOISE_LANES = 64;

struct Counters {
  uint32_t c0[NOISE_LANES], c1[NOISE_LANES], c2[NOISE_LANES], c3[NOISE_LANES];

  void philox(uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; ++round) {
#pragma omp simd
      for (int i = 0; i < NOISE_LANES; ++i) {
        const uint64_t a = uint64_t(c0[i]) * 0xD2511F53u, b = uint64_t(c2[i]) * 0xCD9E8D57u;
        const uint32_t x0 = uint32_t(b >> 32) ^ c1[i] ^ k0, x2 = uint32_t(a >> 32) ^ c3[i] ^ k1;
        c1[i] = uint32_t(b), c3[i] = uint32_t(a);
        c0[i] = x0, c2[i] = x2;
      }
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
  }

  // Four Gaussian numbers of each counter.
  void gaussian(float (*g)[NOISE_LANES]) const {
    box_muller(c0, c1, g[0], g[1]);
    box_muller(c2, c3, g[2], g[3]);
  }

 private:
  static void box_muller(const uint32_t* a, const uint32_t* b, float* first, float* second) {
#pragma omp simd
    for (int i = 0; i < NOISE_LANES; ++i) {
      // u in (0, 1]; ln u = exponent ln 2 + 2 atanh(s) with the mantissa around 1. Converted by
      // halves, for there is no vector conversion of unsigned numbers before AVX-512.
      const float u = (float(int32_t(a[i] >> 16)) * 65536.f + float(int32_t(a[i] & 65535)) + .5f) *
                      2.3283064e-10f;
      int32_t bits;
      std::memcpy(&bits, &u, 4);
      const int32_t exponent = (bits - 0x3f3504f3) >> 23;
      bits -= exponent * (1 << 23);
      float mantissa;
      std::memcpy(&mantissa, &bits, 4);
      const float s = (mantissa - 1.f) / (mantissa + 1.f), z = s * s;
      const float ln = float(exponent) * 0.69314718f +
                       2.f * s * (1.f + z * (1.f / 3 + z * (1.f / 5 + z * (1.f / 7 + z / 9))));
      const float minus = -2.f * ln;
      const float radius = std::sqrt(minus > 0.f ? minus : 0.f);
      // The angle in quarter turns, -2 <= quarter < 2.
      const float quarter = float(int32_t(b[i])) * 9.3132257e-10f;
      const int32_t k = int32_t(quarter + 2.5f) - 2;
      const float x = (quarter - float(k)) * 1.5707963f, y = x * x;
      const float sine =
          x * (1.f + y * (-1.f / 6 + y * (1.f / 120 + y * (-1.f / 5040 + y / 362880))));
      const float cosine =
          1.f + y * (-.5f + y * (1.f / 24 + y * (-1.f / 720 + y * (1.f / 40320))));
      const float p = (k & 1) ? sine : cosine, q = (k & 1) ? cosine : sine;
      first[i] = radius * (((k + 1) & 2) ? -p : p);
      second[i] = radius * ((k & 2) ? -q : q);
    }
  }
};

// Of beads: the counter is (bead, step, replica, block).
class Noise {
 public:
  Noise(int64_t seed, int64_t replica)
      : key0_(uint32_t(uint64_t(seed))), key1_(uint32_t(uint64_t(seed) >> 32)),
        replica_(uint32_t(replica)) {}

  // out[component * n + i], component < components, for bead ids beads[i].
  void fill(int64_t step, int64_t n, const int32_t* beads, int components, double* out) const {
    const uint32_t low = uint32_t(uint64_t(step)), high = uint32_t(uint64_t(step) >> 32);
    for (int64_t start = 0; start < n; start += NOISE_LANES)
      for (int block = 0; 4 * block < components; ++block) {
        const int m = int(n - start < NOISE_LANES ? n - start : NOISE_LANES);
        Counters counters;
        for (int i = 0; i < NOISE_LANES; ++i) {
          counters.c0[i] = i < m ? uint32_t(beads[start + i]) : 0;
          counters.c1[i] = low, counters.c2[i] = replica_;
          counters.c3[i] = uint32_t(block) | (high << 8);
        }
        counters.philox(key0_, key1_);
        float g[4][NOISE_LANES];
        counters.gaussian(g);
        for (int c = 0; c < 4 && 4 * block + c < components; ++c)
          for (int i = 0; i < m; ++i) out[(4 * block + c) * n + start + i] = double(g[c][i]);
      }
  }

 private:
  uint32_t key0_, key1_, replica_;
};

// Of pairs of beads i < j: the counter is (i, step, j, block), the key two words that no bead has.
// A second stream is for variables that begin with the step.
class PairNoise {
 public:
  PairNoise(int64_t seed, int64_t replica) {
    Counters counters{};
    counters.c0[0] = counters.c1[0] = counters.c3[0] = ~0u;
    counters.c2[0] = uint32_t(replica);
    counters.philox(uint32_t(uint64_t(seed)), uint32_t(uint64_t(seed) >> 32));
    key0_ = counters.c0[0], key1_ = counters.c1[0];
  }

  // out[component][pair], up to 4 more components than asked for, of m <= NOISE_LANES pairs.
  void fill(int64_t step, int m, const int32_t* i, const int32_t* j, bool fresh, int components,
            float (*out)[NOISE_LANES]) const {
    const uint32_t low = uint32_t(uint64_t(step)), high = uint32_t(uint64_t(step) >> 32);
    for (int block = 0; 4 * block < components; ++block) {
      Counters counters;
      for (int k = 0; k < NOISE_LANES; ++k) {
        counters.c0[k] = k < m ? uint32_t(i[k]) : 0;
        counters.c1[k] = low;
        counters.c2[k] = k < m ? uint32_t(j[k]) : 0;
        counters.c3[k] = uint32_t(block) | (fresh ? 128u : 0u) | (high << 8);
      }
      counters.philox(key0_, key1_);
      counters.gaussian(out + 4 * block);
    }
  }

 private:
  uint32_t key0_, key1_;
};

}  // namespace CGADV_ISA
}  // namespace cgadv
