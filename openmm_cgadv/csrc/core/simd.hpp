// Packs: a few numbers that one instruction handles together, for any instruction set.
//
// Arithmetic on packs is the compilers' own vector extension (GCC, Clang). Only what it lacks
// (moves between memory and lanes) is spelled out per instruction set.
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
#if defined(__SSE4_1__)
#include <immintrin.h>
#endif
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
  typedef double Wide __attribute__((vector_size(CGADV_BYTES)));
  static constexpr int W = CGADV_BYTES / 8;
};

template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(CGADV_BYTES)));
  typedef int32_t M __attribute__((vector_size(CGADV_BYTES)));
  typedef int32_t I __attribute__((vector_size(CGADV_BYTES)));
  typedef double Wide __attribute__((vector_size(2 * CGADV_BYTES)));
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
#if CGADV_BYTES == 64
  typedef T Half __attribute__((vector_size(32)));
  Half half[2];
  __builtin_memcpy(half, &v, sizeof v);
  const Half h = half[0] + half[1];
#else
  const Pack<T> h = v;
#endif
  constexpr int n = int(sizeof h / sizeof(T));
  T s[n];
  __builtin_memcpy(s, &h, sizeof h);
  for (int m = n / 2; m > 0; m /= 2)
    for (int w = 0; w < m; ++w) s[w] += s[w + m];
  return s[0];
}

template <class T>
CGADV_INLINE Mask<T> lanes() {
  Mask<T> m;
  for (int w = 0; w < Simd<T>::W; ++w) m[w] = w;
  return m;
}

template <class T>
CGADV_INLINE Mask<T> broadcast_mask(int v) {
  using E = decltype(lanes<T>()[0] + 0);
  return E(v) - Mask<T>{};
}

// Lane by lane: compilers make a single instruction of each.
template <class V>
CGADV_INLINE V sqrt(V x) {
  for (std::size_t w = 0; w < sizeof x / sizeof x[0]; ++w) x[w] = std::sqrt(x[w]);
  return x;
}
template <class V>
CGADV_INLINE V floor(V x) {
  for (std::size_t w = 0; w < sizeof x / sizeof x[0]; ++w) x[w] = std::floor(x[w]);
  return x;
}
template <class V>
CGADV_INLINE V round(V x) {
  for (std::size_t w = 0; w < sizeof x / sizeof x[0]; ++w) x[w] = std::nearbyint(x[w]);
  return x;
}

// Four numbers a lane from records of four in memory, and back.
//
// fetch4: out[c][w] = base[4 * index[w] + c]; hardware gathers are slower than this everywhere.
// add4: base[4 * index[w] + c] += in[c][w], lane after lane, so that lanes may share a record.
// add4_sum: the same, all lanes to one record.
// append: writes the indices of the lanes where mask holds, returns how many; may write a whole
// pack. look_up: c[d][w] = columns[32 d + row[w]] of up to 32 rows, only where SMALL_TABLES.
#if CGADV_BYTES >= 32
CGADV_INLINE void add_record(float* base, int64_t i, __m128 v) {
  _mm_storeu_ps(base + 4 * i, _mm_add_ps(_mm_loadu_ps(base + 4 * i), v));
}
CGADV_INLINE void add_record(double* base, int64_t i, __m256d v) {
  _mm256_storeu_pd(base + 4 * i, _mm256_add_pd(_mm256_loadu_pd(base + 4 * i), v));
}
#endif
#if CGADV_BYTES == 64
CGADV_INLINE void add4_sum(float* record, const Pack<float>* in) {
  const __m512 x = (__m512)in[0], y = (__m512)in[1], z = (__m512)in[2], q = (__m512)in[3];
  const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y)),
               b = _mm512_add_ps(_mm512_unpacklo_ps(z, q), _mm512_unpackhi_ps(z, q));
  const __m512 c = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  const __m256 d = _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps(c, 1));
  const __m128 e = _mm_add_ps(_mm256_castps256_ps128(d), _mm256_extractf128_ps(d, 1));
  add_record(record, 0, e);
}
CGADV_INLINE void add4_sum(double* record, const Pack<double>* in) {
  const __m512d x = (__m512d)in[0], y = (__m512d)in[1], z = (__m512d)in[2], q = (__m512d)in[3];
  const __m512d a = _mm512_add_pd(_mm512_unpacklo_pd(x, y), _mm512_unpackhi_pd(x, y)),
                b = _mm512_add_pd(_mm512_unpacklo_pd(z, q), _mm512_unpackhi_pd(z, q));
  const __m256d c = _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1)),
                d = _mm256_add_pd(_mm512_castpd512_pd256(b), _mm512_extractf64x4_pd(b, 1));
  const __m256d e =
      _mm256_add_pd(_mm256_permute2f128_pd(c, d, 0x20), _mm256_permute2f128_pd(c, d, 0x31));
  add_record(record, 0, e);
}
CGADV_INLINE void fetch4(const float* base, const int32_t* index, Pack<float>* out) {
  __m512 r[4];
  for (int k = 0; k < 4; ++k) {
    r[k] = _mm512_castps128_ps512(_mm_loadu_ps(base + 4 * int64_t(index[k])));
    r[k] = _mm512_insertf32x4(r[k], _mm_loadu_ps(base + 4 * int64_t(index[k + 4])), 1);
    r[k] = _mm512_insertf32x4(r[k], _mm_loadu_ps(base + 4 * int64_t(index[k + 8])), 2);
    r[k] = _mm512_insertf32x4(r[k], _mm_loadu_ps(base + 4 * int64_t(index[k + 12])), 3);
  }
  const __m512 a = _mm512_unpacklo_ps(r[0], r[1]), b = _mm512_unpacklo_ps(r[2], r[3]),
               c = _mm512_unpackhi_ps(r[0], r[1]), d = _mm512_unpackhi_ps(r[2], r[3]);
  out[0] = (Pack<float>)_mm512_shuffle_ps(a, b, 0x44);
  out[1] = (Pack<float>)_mm512_shuffle_ps(a, b, 0xee);
  out[2] = (Pack<float>)_mm512_shuffle_ps(c, d, 0x44);
  out[3] = (Pack<float>)_mm512_shuffle_ps(c, d, 0xee);
}
CGADV_INLINE void fetch4(const double* base, const int32_t* index, Pack<double>* out) {
  __m512d r[4];
  for (int k = 0; k < 4; ++k) {
    r[k] = _mm512_castpd256_pd512(_mm256_loadu_pd(base + 4 * int64_t(index[k])));
    r[k] = _mm512_insertf64x4(r[k], _mm256_loadu_pd(base + 4 * int64_t(index[k + 4])), 1);
  }
  const __m512d a = _mm512_unpacklo_pd(r[0], r[1]), b = _mm512_unpacklo_pd(r[2], r[3]),
                c = _mm512_unpackhi_pd(r[0], r[1]), d = _mm512_unpackhi_pd(r[2], r[3]);
  const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13),
                high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
  out[0] = (Pack<double>)_mm512_permutex2var_pd(a, low, b);
  out[1] = (Pack<double>)_mm512_permutex2var_pd(c, low, d);
  out[2] = (Pack<double>)_mm512_permutex2var_pd(a, high, b);
  out[3] = (Pack<double>)_mm512_permutex2var_pd(c, high, d);
}
CGADV_INLINE void add4(float* base, const int32_t* index, const Pack<float>* in) {
  const __m512 x = (__m512)in[0], y = (__m512)in[1], z = (__m512)in[2], q = (__m512)in[3];
  const __m512 a = _mm512_unpacklo_ps(x, y), b = _mm512_unpacklo_ps(z, q),
               c = _mm512_unpackhi_ps(x, y), d = _mm512_unpackhi_ps(z, q);
  const __m512 r[4] = {_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee),
                       _mm512_shuffle_ps(c, d, 0x44), _mm512_shuffle_ps(c, d, 0xee)};
  for (int k = 0; k < 4; ++k) add_record(base, index[k], _mm512_castps512_ps128(r[k]));
  for (int k = 0; k < 4; ++k) add_record(base, index[4 + k], _mm512_extractf32x4_ps(r[k], 1));
  for (int k = 0; k < 4; ++k) add_record(base, index[8 + k], _mm512_extractf32x4_ps(r[k], 2));
  for (int k = 0; k < 4; ++k) add_record(base, index[12 + k], _mm512_extractf32x4_ps(r[k], 3));
}
CGADV_INLINE void add4(double* base, const int32_t* index, const Pack<double>* in) {
  const __m512d x = (__m512d)in[0], y = (__m512d)in[1], z = (__m512d)in[2], q = (__m512d)in[3];
  const __m512d a = _mm512_unpacklo_pd(x, y), b = _mm512_unpackhi_pd(x, y),
                c = _mm512_unpacklo_pd(z, q), d = _mm512_unpackhi_pd(z, q);
  const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13),
                odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
  const __m512d r[4] = {_mm512_permutex2var_pd(a, even, c), _mm512_permutex2var_pd(b, even, d),
                        _mm512_permutex2var_pd(a, odd, c), _mm512_permutex2var_pd(b, odd, d)};
  for (int k = 0; k < 4; ++k) add_record(base, index[k], _mm512_castpd512_pd256(r[k]));
  for (int k = 0; k < 4; ++k) add_record(base, index[4 + k], _mm512_extractf64x4_pd(r[k], 1));
}
CGADV_INLINE int append(int32_t* out, Index<float> index, Mask<float> mask) {
  const __mmask16 m = _mm512_movepi32_mask((__m512i)mask);
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(m, (__m512i)index));
  return __builtin_popcount(m);
}
CGADV_INLINE int append(int32_t* out, Index<double> index, Mask<double> mask) {
  const __mmask8 m = _mm512_movepi64_mask((__m512i)mask);
  _mm256_storeu_si256((__m256i*)out, _mm256_maskz_compress_epi32(m, (__m256i)index));
  return __builtin_popcount(m);
}
constexpr bool SMALL_TABLES = true;
CGADV_INLINE void look_up(const float* columns, int rows, Index<float> row, Pack<float>* c) {
  for (int d = 0; d < 4; ++d) {
    const float* t = columns + 32 * d;
    c[d] = rows <= 16 ? (Pack<float>)_mm512_permutexvar_ps((__m512i)row, _mm512_loadu_ps(t))
                      : (Pack<float>)_mm512_permutex2var_ps(_mm512_loadu_ps(t), (__m512i)row,
                                                            _mm512_loadu_ps(t + 16));
  }
}
CGADV_INLINE void look_up(const double* columns, int rows, Index<double> row, Pack<double>* c) {
  const __m512i i = _mm512_cvtepi32_epi64((__m256i)row);
  const __mmask8 upper = _mm512_test_epi64_mask(i, _mm512_set1_epi64(16));
  for (int d = 0; d < 4; ++d) {
    const double* t = columns + 32 * d;
    if (rows <= 8)
      c[d] = (Pack<double>)_mm512_permutexvar_pd(i, _mm512_loadu_pd(t));
    else
      c[d] = (Pack<double>)_mm512_mask_blend_pd(
          upper, _mm512_permutex2var_pd(_mm512_loadu_pd(t), i, _mm512_loadu_pd(t + 8)),
          _mm512_permutex2var_pd(_mm512_loadu_pd(t + 16), i, _mm512_loadu_pd(t + 24)));
  }
}
#elif CGADV_BYTES == 32
CGADV_INLINE void fetch4(const float* base, const int32_t* index, Pack<float>* out) {
  __m256 r[4];
  for (int k = 0; k < 4; ++k) {
    r[k] = _mm256_castps128_ps256(_mm_loadu_ps(base + 4 * int64_t(index[k])));
    r[k] = _mm256_insertf128_ps(r[k], _mm_loadu_ps(base + 4 * int64_t(index[k + 4])), 1);
  }
  const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpacklo_ps(r[2], r[3]),
               c = _mm256_unpackhi_ps(r[0], r[1]), d = _mm256_unpackhi_ps(r[2], r[3]);
  out[0] = (Pack<float>)_mm256_shuffle_ps(a, b, 0x44);
  out[1] = (Pack<float>)_mm256_shuffle_ps(a, b, 0xee);
  out[2] = (Pack<float>)_mm256_shuffle_ps(c, d, 0x44);
  out[3] = (Pack<float>)_mm256_shuffle_ps(c, d, 0xee);
}
CGADV_INLINE void fetch4(const double* base, const int32_t* index, Pack<double>* out) {
  __m256d r[4];
  for (int k = 0; k < 4; ++k) r[k] = _mm256_loadu_pd(base + 4 * int64_t(index[k]));
  const __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpacklo_pd(r[2], r[3]),
                c = _mm256_unpackhi_pd(r[0], r[1]), d = _mm256_unpackhi_pd(r[2], r[3]);
  out[0] = (Pack<double>)_mm256_permute2f128_pd(a, b, 0x20);
  out[1] = (Pack<double>)_mm256_permute2f128_pd(c, d, 0x20);
  out[2] = (Pack<double>)_mm256_permute2f128_pd(a, b, 0x31);
  out[3] = (Pack<double>)_mm256_permute2f128_pd(c, d, 0x31);
}
CGADV_INLINE void add4(float* base, const int32_t* index, const Pack<float>* in) {
  const __m256 x = (__m256)in[0], y = (__m256)in[1], z = (__m256)in[2], q = (__m256)in[3];
  const __m256 a = _mm256_unpacklo_ps(x, y), b = _mm256_unpacklo_ps(z, q),
               c = _mm256_unpackhi_ps(x, y), d = _mm256_unpackhi_ps(z, q);
  const __m256 r[4] = {_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee),
                       _mm256_shuffle_ps(c, d, 0x44), _mm256_shuffle_ps(c, d, 0xee)};
  for (int k = 0; k < 4; ++k) add_record(base, index[k], _mm256_castps256_ps128(r[k]));
  for (int k = 0; k < 4; ++k) add_record(base, index[4 + k], _mm256_extractf128_ps(r[k], 1));
}
CGADV_INLINE void add4(double* base, const int32_t* index, const Pack<double>* in) {
  const __m256d x = (__m256d)in[0], y = (__m256d)in[1], z = (__m256d)in[2], q = (__m256d)in[3];
  const __m256d a = _mm256_unpacklo_pd(x, y), b = _mm256_unpackhi_pd(x, y),
                c = _mm256_unpacklo_pd(z, q), d = _mm256_unpackhi_pd(z, q);
  add_record(base, index[0], _mm256_permute2f128_pd(a, c, 0x20));
  add_record(base, index[1], _mm256_permute2f128_pd(b, d, 0x20));
  add_record(base, index[2], _mm256_permute2f128_pd(a, c, 0x31));
  add_record(base, index[3], _mm256_permute2f128_pd(b, d, 0x31));
}
#else
// A record of four floats, or half a record of doubles, is one pack.
CGADV_INLINE void transpose(Pack<float>* r) {
#if defined(__SSE4_1__)
  __m128 a = (__m128)r[0], b = (__m128)r[1], c = (__m128)r[2], d = (__m128)r[3];
  _MM_TRANSPOSE4_PS(a, b, c, d);
  r[0] = (Pack<float>)a, r[1] = (Pack<float>)b, r[2] = (Pack<float>)c, r[3] = (Pack<float>)d;
#else
  const Pack<float> a{r[0][0], r[1][0], r[2][0], r[3][0]}, b{r[0][1], r[1][1], r[2][1], r[3][1]},
      c{r[0][2], r[1][2], r[2][2], r[3][2]}, d{r[0][3], r[1][3], r[2][3], r[3][3]};
  r[0] = a, r[1] = b, r[2] = c, r[3] = d;
#endif
}
CGADV_INLINE void fetch4(const float* base, const int32_t* index, Pack<float>* out) {
  for (int w = 0; w < 4; ++w) out[w] = load(base + 4 * int64_t(index[w]));
  transpose(out);
}
CGADV_INLINE void fetch4(const double* base, const int32_t* index, Pack<double>* out) {
  const double *a = base + 4 * int64_t(index[0]), *b = base + 4 * int64_t(index[1]);
  for (int c = 0; c < 4; ++c) out[c] = Pack<double>{a[c], b[c]};
}
CGADV_INLINE void add4(float* base, const int32_t* index, const Pack<float>* in) {
  Pack<float> r[4] = {in[0], in[1], in[2], in[3]};
  transpose(r);
  for (int w = 0; w < 4; ++w) {
    float* p = base + 4 * int64_t(index[w]);
    store<float>(p, load(p) + r[w]);
  }
}
CGADV_INLINE void add4(double* base, const int32_t* index, const Pack<double>* in) {
  for (int w = 0; w < 2; ++w) {
    double* p = base + 4 * int64_t(index[w]);
    store<double>(p, load(p) + Pack<double>{in[0][w], in[1][w]});
    store<double>(p + 2, load(p + 2) + Pack<double>{in[2][w], in[3][w]});
  }
}
#endif

#if CGADV_BYTES != 64
template <class T, class V>
CGADV_INLINE void add4_sum(T* record, const V* in) {
  for (int c = 0; c < 3; ++c) record[c] += sum<T>(in[c]);
}
#if defined(__SSE4_1__)
// out[0 .. n) = the lanes of `index` whose bit is set.
CGADV_INLINE int append4(int32_t* out, __m128i index, int bits) {
  struct Table {
    int8_t order[16][16];
    constexpr Table() : order() {
      for (int m = 0; m < 16; ++m) {
        int n = 0;
        for (int w = 0; w < 4; ++w)
          if (m >> w & 1) {
            for (int b = 0; b < 4; ++b) order[m][4 * n + b] = int8_t(4 * w + b);
            ++n;
          }
        for (; n < 4; ++n)
          for (int b = 0; b < 4; ++b) order[m][4 * n + b] = -1;
      }
    }
  };
  static constexpr Table table;
  _mm_storeu_si128((__m128i*)out, _mm_shuffle_epi8(
      index, _mm_loadu_si128((const __m128i*)table.order[bits])));
  return __builtin_popcount(unsigned(bits));
}
CGADV_INLINE int append(int32_t* out, Index<float> index, Mask<float> mask) {
#if CGADV_BYTES == 32
  const int bits = _mm256_movemask_ps((__m256)mask);
  if (bits == 0) return 0;
  const int n = append4(out, _mm256_castsi256_si128((__m256i)index), bits & 15);
  return n + append4(out + n, _mm256_extracti128_si256((__m256i)index, 1), bits >> 4);
#else
  return append4(out, (__m128i)index, _mm_movemask_ps((__m128)mask));
#endif
}
#if CGADV_BYTES == 32
CGADV_INLINE int append(int32_t* out, Index<double> index, Mask<double> mask) {
  return append4(out, (__m128i)index, _mm256_movemask_pd((__m256d)mask));
}
#endif
#endif
template <class I, class M>
CGADV_INLINE int append(int32_t* out, I index, M mask) {
  int n = 0;
  for (int w = 0; w < int(sizeof(I) / 4); ++w) {
    out[n] = index[w];
    n += mask[w] != 0;
  }
  return n;
}
constexpr bool SMALL_TABLES = false;
template <class T, class I, class V>
CGADV_INLINE void look_up(const T*, int, I, V*) {}
#endif

// Sums in double over packs of either type.
template <class T>
struct Total {
  using Wide = typename Simd<T>::Wide;
  Wide wide{};
  CGADV_INLINE void add(Pack<T> v) { wide += __builtin_convertvector(v, Wide); }
  double value() const {
    double s = 0;
    for (int w = 0; w < Simd<T>::W; ++w) s += wide[w];
    return s;
  }
};

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
