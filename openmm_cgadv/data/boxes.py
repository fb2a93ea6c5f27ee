"""Box vectors of files from other programs, in OpenMM's reduced form."""

from __future__ import annotations

import numpy as np

from ..errors import InputError

ROUNDING = 1e-5
"""Largest relative error of a box vector by rounding in a file; XTC files have single precision or thousandths of a nm."""


def reduced_boxes(boxes: np.ndarray) -> np.ndarray:
    """Return the same lattices in OpenMM's reduced form.

    The rows are a = (ax, 0, 0), b = (bx, by, 0) and c = (cx, cy, cz) with a positive diagonal, \\|bx\\| and \\|cx\\| at most
    ax/2, and \\|cy\\| at most by/2. In a rhombic dodecahedron or a truncated octahedron some elements are exactly half of
    others, and exceed it by the rounding of the file: they are set to the half, so that all frames have the same form.

    Parameters
    ----------
    boxes : ndarray [T, 3, 3]
        Box vectors in rows (nm).

    Raises
    ------
    InputError
        The vectors are not lower triangular with a positive diagonal. Positions would have to be rotated.
    """
    boxes = np.array(boxes, dtype=np.float64)
    lengths = np.linalg.norm(boxes, axis=2).max(1)
    upper = np.abs(boxes[:, [0, 0, 1], [1, 2, 2]]).max(1)
    diagonal = np.diagonal(boxes, axis1=1, axis2=2)
    bad = (upper > ROUNDING * lengths) | (diagonal <= 0).any(1)
    if bad.any():
        found = np.array2string(boxes[np.argmax(bad)], precision=4, separator=", ")
        raise InputError(
            f"found box vectors {' '.join(found.split())}, expected a along x, b in the plane of x and y, and a positive "
            "diagonal"
        )
    boxes[:, [0, 0, 1], [1, 2, 2]] = 0.0
    for row, by in ((2, 1), (2, 0), (1, 0)):
        share = boxes[:, row, by] / boxes[:, by, by]
        # A share of one half, of either sign, becomes +1/2 in every frame.
        boxes[:, row] -= np.ceil(share - 0.5 - ROUNDING)[:, None] * boxes[:, by]
        share = boxes[:, row, by] / boxes[:, by, by]
        half = np.abs(share - 0.5) <= ROUNDING
        boxes[half, row, by] = 0.5 * boxes[half, by, by]
    return boxes
