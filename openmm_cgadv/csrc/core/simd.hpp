// Packs: a few numbers that one instruction handles together, for any instruction set.
//
// Arithmetic on packs is the compilers' own vector extension (GCC, Clang). Only what it lacks
// (gather, square root, rounding) is spelled out per instruction set.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include <immintrin.h>
#define CGADV_BYTES 64
#elif defined(__AVX2__)
#include <immintrin.h>
#define CGADV_BYTES 32
#else
#define CGADV_BYTES 16
#endif

// Each instruction set's build of the core lives in a namespace of its own.
#ifndef CGADV_ISA
#define CGADV_ISA native
#endif

#define CGADV_INLINE inline __attribute__((always_inline))

namespace cgadv {
inline namespace CGADV_ISA {

template <class T>
struct Simd;

template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(CGADV_BYTES)));
  typedef int64_t M __attribute__((vector_size(CGADV_BYTES)));
  typedef int32_t I __attribute__((vector_size(CGADV_BYTES / 2)));
  static constexpr int W = CGADV_BYTES / 8;
};

template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(CGADV_BYTES)));
  typedef int32_t M __attribute__((vector_size(CGADV_BYTES)));
  typedef int32_t I __attribute__((vector_size(CGADV_BYTES)));
  static constexpr int W = CGADV_BYTES / 4;
};

template <class T>
using Pack = typename Simd<T>::V;
template <class T>
using Mask = typename Simd<T>::M;
template <class T>
using Index = typename Simd<T>::I;

// Rows are padded to this many entries, whatever the scalar.
constexpr int ROW = CGADV_BYTES / 4;

// s - 0 is exactly s, so the compiler reduces this to a broadcast.
template <class T>
CGADV_INLINE Pack<T> broadcast(T s) {
  return s - Pack<T>{};
}

template <class T>
CGADV_INLINE Pack<T> load(const T* p) {
  Pack<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
CGADV_INLINE void store(T* p, Pack<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

template <class T>
CGADV_INLINE Index<T> load_index(const int32_t* p) {
  Index<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
CGADV_INLINE T sum(Pack<T> v) {
  T s = 0;
  for (int w = 0; w < Simd<T>::W; ++w) s += v[w];
  return s;
}

template <class T>
CGADV_INLINE Mask<T> lanes() {
  Mask<T> m;
  for (int w = 0; w < Simd<T>::W; ++w) m[w] = w;
  return m;
}

#if CGADV_BYTES == 64
CGADV_INLINE Pack<double> gather(const double* p, Index<double> i) {
  return (Pack<double>)_mm512_i32gather_pd((__m256i)i, p, 8);
}
CGADV_INLINE Pack<float> gather(const float* p, Index<float> i) {
  return (Pack<float>)_mm512_i32gather_ps((__m512i)i, p, 4);
}
CGADV_INLINE Pack<double> sqrt(Pack<double> x) { return (Pack<double>)_mm512_sqrt_pd((__m512d)x); }
CGADV_INLINE Pack<float> sqrt(Pack<float> x) { return (Pack<float>)_mm512_sqrt_ps((__m512)x); }
CGADV_INLINE Pack<double> floor(Pack<double> x) {
  return (Pack<double>)_mm512_roundscale_pd((__m512d)x, 9);
}
CGADV_INLINE Pack<float> floor(Pack<float> x) {
  return (Pack<float>)_mm512_roundscale_ps((__m512)x, 9);
}
CGADV_INLINE Pack<double> round(Pack<double> x) {
  return (Pack<double>)_mm512_roundscale_pd((__m512d)x, 8);
}
CGADV_INLINE Pack<float> round(Pack<float> x) {
  return (Pack<float>)_mm512_roundscale_ps((__m512)x, 8);
}
#elif CGADV_BYTES == 32
CGADV_INLINE Pack<double> gather(const double* p, Index<double> i) {
  return (Pack<double>)_mm256_i32gather_pd(p, (__m128i)i, 8);
}
CGADV_INLINE Pack<float> gather(const float* p, Index<float> i) {
  return (Pack<float>)_mm256_i32gather_ps(p, (__m256i)i, 4);
}
CGADV_INLINE Pack<double> sqrt(Pack<double> x) { return (Pack<double>)_mm256_sqrt_pd((__m256d)x); }
CGADV_INLINE Pack<float> sqrt(Pack<float> x) { return (Pack<float>)_mm256_sqrt_ps((__m256)x); }
CGADV_INLINE Pack<double> floor(Pack<double> x) {
  return (Pack<double>)_mm256_round_pd((__m256d)x, 9);
}
CGADV_INLINE Pack<float> floor(Pack<float> x) { return (Pack<float>)_mm256_round_ps((__m256)x, 9); }
CGADV_INLINE Pack<double> round(Pack<double> x) {
  return (Pack<double>)_mm256_round_pd((__m256d)x, 8);
}
CGADV_INLINE Pack<float> round(Pack<float> x) { return (Pack<float>)_mm256_round_ps((__m256)x, 8); }
#else
template <class T, class I>
CGADV_INLINE Pack<T> gather(const T* p, I i) {
  Pack<T> v;
  for (int w = 0; w < Simd<T>::W; ++w) v[w] = p[i[w]];
  return v;
}
#define CGADV_LANEWISE(T, name, call)                             \
  CGADV_INLINE Pack<T> name(Pack<T> x) {                          \
    Pack<T> v;                                                    \
    for (int w = 0; w < Simd<T>::W; ++w) v[w] = std::call(x[w]);  \
    return v;                                                     \
  }
CGADV_LANEWISE(double, sqrt, sqrt)
CGADV_LANEWISE(float, sqrt, sqrt)
CGADV_LANEWISE(double, floor, floor)
CGADV_LANEWISE(float, floor, floor)
CGADV_LANEWISE(double, round, nearbyint)
CGADV_LANEWISE(float, round, nearbyint)
#undef CGADV_LANEWISE
#endif

template <class T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(std::size_t n) {
    const std::size_t bytes = (n * sizeof(T) + 63) / 64 * 64;
    void* p = std::aligned_alloc(64, bytes);
    if (p == nullptr) throw std::bad_alloc();
    return static_cast<T*>(p);
  }
  void deallocate(T* p, std::size_t) { std::free(p); }
  template <class U>
  bool operator==(const AlignedAllocator<U>&) const { return true; }
  template <class U>
  bool operator!=(const AlignedAllocator<U>&) const { return false; }
};

template <class T>
using Array = std::vector<T, AlignedAllocator<T>>;

}  // namespace CGADV_ISA
}  // namespace cgadv
