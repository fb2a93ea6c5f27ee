// Periodic boxes in OpenMM's reduced triclinic form and the nearest image of a displacement.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "errors.hpp"
#include "simd.hpp"

namespace cgadv {
inline namespace CGADV_ISA {

// Rows a = (ax,0,0), b = (bx,by,0), c = (cx,cy,cz) in nm.
//
// Rounding z, then y, then x finds the nearest image of every displacement shorter than half the
// smallest diagonal element; no lattice vector is shorter than that element, so such an image is
// unique.
struct Box {
  // In longer boxes (nm) a float does not tell neighbours apart.
  static constexpr double LONGEST = 1e6;

  double ax, bx, by, cx, cy, cz;

  explicit Box(const double* rows = nullptr) {
    if (rows == nullptr) {
      ax = by = cz = 1;
      bx = cx = cy = 0;
      return;
    }
    ax = rows[0], bx = rows[3], by = rows[4], cx = rows[6], cy = rows[7], cz = rows[8];
    if (!std::isfinite(ax + by + cz))
      throw InvalidInput("box vectors are not finite");
    if (ax > LONGEST || by > LONGEST || cz > LONGEST)
      throw InvalidInput("the box is " + std::to_string(std::max(ax, std::max(by, cz))) +
                         " nm long, expected at most 1e6 nm");
    if (rows[1] != 0 || rows[2] != 0 || rows[5] != 0 || !(ax > 0) || !(by > 0) || !(cz > 0) ||
        !(std::abs(bx) <= 0.5000001 * ax) || !(std::abs(cx) <= 0.5000001 * ax) ||
        !(std::abs(cy) <= 0.5000001 * by))
      throw InvalidInput(
          "box vectors are not in OpenMM's reduced form, which is a=(ax,0,0), b=(bx,by,0), "
          "c=(cx,cy,cz) with positive diagonal, |bx| and |cx| <= ax/2 and |cy| <= by/2");
  }

  bool operator==(const Box& o) const {
    return ax == o.ax && bx == o.bx && by == o.by && cx == o.cx && cy == o.cy && cz == o.cz;
  }
  bool rectangular() const { return bx == 0 && cx == 0 && cy == 0; }
  double half_width() const { return 0.5 * std::min(ax, std::min(by, cz)); }

  void nearest(double& x, double& y, double& z) const {
    const double nz = std::nearbyint(z / cz);
    x -= nz * cx, y -= nz * cy, z -= nz * cz;
    const double ny = std::nearbyint(y / by);
    x -= ny * bx, y -= ny * by;
    x -= ax * std::nearbyint(x / ax);
  }

  // Into the brick [0,ax) x [0,by) x [0,cz), which is a unit cell too.
  void wrap(double& x, double& y, double& z) const {
    const double nz = std::floor(z / cz);
    x -= nz * cx, y -= nz * cy, z -= nz * cz;
    const double ny = std::floor(y / by);
    x -= ny * bx, y -= ny * by;
    x -= ax * std::floor(x / ax);
  }
};

template <class T>
struct PackBox {
  Pack<T> ax, bx, by, cx, cy, cz, ia, ib, ic;
  bool rectangular;

  explicit PackBox(const Box& b)
      : ax(broadcast<T>(T(b.ax))), bx(broadcast<T>(T(b.bx))), by(broadcast<T>(T(b.by))),
        cx(broadcast<T>(T(b.cx))), cy(broadcast<T>(T(b.cy))), cz(broadcast<T>(T(b.cz))),
        ia(broadcast<T>(T(1 / b.ax))), ib(broadcast<T>(T(1 / b.by))),
        ic(broadcast<T>(T(1 / b.cz))), rectangular(b.rectangular()) {}

  // S is a pack or a dual pack: the shift has no derivative.
  template <class S, class Value>
  CGADV_INLINE void nearest(S& x, S& y, S& z, Value value) const {
    if (rectangular) {
      x = x - ax * round(value(x) * ia);
      y = y - by * round(value(y) * ib);
      z = z - cz * round(value(z) * ic);
    } else {
      const Pack<T> nz = round(value(z) * ic);
      x = x - cx * nz, y = y - cy * nz, z = z - cz * nz;
      const Pack<T> ny = round(value(y) * ib);
      x = x - bx * ny, y = y - by * ny;
      x = x - ax * round(value(x) * ia);
    }
  }
};

}  // namespace CGADV_ISA
}  // namespace cgadv
