// The numbers that the kernels compute with: plain packs, or packs of dual numbers.
//
// A dual number a + b e with e^2 = 0 carries a derivative along one direction. The gradient of
// the energy evaluated at x + e d has as its e-part the Hessian applied to d.
#pragma once

#include "simd.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

template <class V>
struct Dual {
  V v, e;
};

template <class V>
CGADV_INLINE Dual<V> operator+(Dual<V> a, Dual<V> b) { return {a.v + b.v, a.e + b.e}; }
template <class V>
CGADV_INLINE Dual<V> operator-(Dual<V> a, Dual<V> b) { return {a.v - b.v, a.e - b.e}; }
template <class V>
CGADV_INLINE Dual<V> operator*(Dual<V> a, Dual<V> b) {
  return {a.v * b.v, a.v * b.e + a.e * b.v};
}
template <class V>
CGADV_INLINE Dual<V> operator+(Dual<V> a, V b) { return {a.v + b, a.e}; }
template <class V>
CGADV_INLINE Dual<V> operator-(Dual<V> a, V b) { return {a.v - b, a.e}; }
template <class V>
CGADV_INLINE Dual<V> operator*(Dual<V> a, V b) { return {a.v * b, a.e * b}; }
template <class V>
CGADV_INLINE Dual<V>& operator+=(Dual<V>& a, Dual<V> b) { return a = a + b; }
template <class V>
CGADV_INLINE Dual<V>& operator-=(Dual<V>& a, Dual<V> b) { return a = a - b; }

// What a kernel needs to know of its scalar S over the real type T.
template <class T, bool DUAL>
struct Scalar;

template <class T>
struct Scalar<T, false> {
  using V = Pack<T>;
  using S = V;
  static CGADV_INLINE V value(S s) { return s; }
  static CGADV_INLINE V result(S s) { return s; }
  static CGADV_INLINE V product_result(S a, S b) { return a * b; }
  static CGADV_INLINE S fma(S a, S b, S c) { return a * b + c; }
  // f(t) from f and its derivative at t's value.
  static CGADV_INLINE S function(S, V f, V) { return f; }
  // Components of beads' positions, from records of four.
  static CGADV_INLINE void fetch(const T* v, const T*, const int32_t* index, S* out) {
    fetch4(v, index, out);
  }
  static CGADV_INLINE S fetch_one(const T* v, const T*, int i, int c) {
    return broadcast<T>(v[4 * int64_t(i) + c]);
  }
  static CGADV_INLINE S lane(const S* a, int k) {
    return broadcast<T>(reinterpret_cast<const T*>(a)[k]);
  }
  static CGADV_INLINE S select(Mask<T> m, S a) { return m ? a : V{}; }
  // r and 1/r from r^2; coincident beads get 1/r = 0, so their unit vector is zero.
  static CGADV_INLINE void norm(S r2, S& r, S& inverse) {
    r = sqrt(r2);
    inverse = r2 > V{} ? broadcast<T>(1) / r : V{};
  }
};

template <class T>
struct Scalar<T, true> {
  using V = Pack<T>;
  using S = Dual<V>;
  static CGADV_INLINE V value(S s) { return s.v; }
  static CGADV_INLINE V result(S s) { return s.e; }
  static CGADV_INLINE V product_result(S a, S b) { return a.v * b.e + a.e * b.v; }
  // Not a * b + c, which would be two additions instead of one.
  static CGADV_INLINE S fma(S a, S b, S c) {
    return {a.v * b.v + c.v, a.v * b.e + (a.e * b.v + c.e)};
  }
  static CGADV_INLINE S function(S t, V f, V slope) { return {f, slope * t.e}; }
  static CGADV_INLINE void fetch(const T* v, const T* e, const int32_t* index, S* out) {
    V a[4], b[4];
    fetch4(v, index, a);
    fetch4(e, index, b);
    for (int c = 0; c < 3; ++c) out[c] = {a[c], b[c]};
  }
  static CGADV_INLINE S fetch_one(const T* v, const T* e, int i, int c) {
    return {broadcast<T>(v[4 * int64_t(i) + c]), broadcast<T>(e[4 * int64_t(i) + c])};
  }
  static CGADV_INLINE S lane(const S* a, int k) {
    constexpr int W = Simd<T>::W;
    const T* p = reinterpret_cast<const T*>(a + k / W) + k % W;
    return {broadcast<T>(p[0]), broadcast<T>(p[W])};
  }
  static CGADV_INLINE S select(Mask<T> m, S a) { return {m ? a.v : V{}, m ? a.e : V{}}; }
  static CGADV_INLINE void norm(S r2, S& r, S& inverse) {
    r.v = sqrt(r2.v);
    inverse.v = r2.v > V{} ? broadcast<T>(1) / r.v : V{};
    r.e = broadcast<T>(T(0.5)) * r2.e * inverse.v;
    inverse.e = -inverse.v * inverse.v * r.e;
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
