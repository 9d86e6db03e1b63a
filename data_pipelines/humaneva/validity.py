"""At which times the motion capture tells the pose: inside the recording, with all 39 markers and segments there."""

from __future__ import annotations

import numpy as np

from data_pipelines.humaneva.points import Points
from data_pipelines.humaneva.segments import right_angled, row_axes

MARKERS: tuple[tuple[str, ...], ...] = (
    *(("RASI",), ("LASI",), ("LPSI",), ("RPSI",)),
    *(("STRN",), ("CLAV",), ("C7",), ("T10",), ("RBAK",)),
    *(("LSHO",), ("RSHO",), ("LUPA",), ("RUPA",), ("LELB",), ("RELB",)),
    *(("LFRM", "LFRA"), ("RFRM", "RFRA")),  # the forearm's marker has two names
    *(("LWRA",), ("LWRB",), ("RWRA",), ("RWRB",), ("LFIN",), ("RFIN",)),
    *(("LTHI",), ("RTHI",), ("LKNE",), ("RKNE",), ("LTIB",), ("RTIB",)),
    *(("LANK",), ("RANK",), ("LHEE",), ("RHEE",), ("LTOE",), ("RTOE",)),
    *(("LFHD",), ("RFHD",), ("LBHD",), ("RBHD",)),
)
AXES = ("PEL", "HED", "LFE", "RFE", "LTI", "RTI", "LHU", "RHU", "LRA", "RRA")
"""Segments whose axes are needed; of the others the origin alone."""
CENTRES = (
    "PELO",
    "TRXO",
    "LFEP",
    "RFEP",
    "LFEO",
    "RFEO",
    "LCLO",
    "RCLO",
    "LHUO",
    "RHUO",
    "LRAO",
    "RRAO",
    "LTIO",
    "RTIO",
)

OUTSIDE = "frames beyond the motion capture"
NO_MARKER = "frames with one of the 39 markers missing"
NO_SEGMENT = "frames with a body segment missing"
SKEWED = "frames with a body segment that is no right-handed frame"


def reasons(points: Points, positions: np.ndarray) -> np.ndarray:
    """Why there is no pose at each 1-based position (F,): one of the four reasons, '' where there is one. (F,) str.

    Raises:
      UserError: a needed point is not in the file at all.
    """
    positions = np.asarray(positions, np.float64)
    low, high = np.floor(positions).astype(int) - 1, np.ceil(positions).astype(int) - 1
    inside = (low >= 0) & (low + 1 < len(points))  # the row after is read even where its share is nothing
    low, high, after = (np.where(inside, rows, 0) for rows in (low, high, low + 1))
    seen = ~np.isnan(points.xyz[:, [points.index(*names) for names in MARKERS]]).any((1, 2))
    tracks = [points.track(name) for name in CENTRES]
    axes = [row_axes(points, segment)[0] for segment in AXES]
    whole = ~np.isnan(np.stack(tracks)).any((0, 2)) & ~np.isnan(np.stack(axes)).any((0, 2, 3))
    straight = np.all([right_angled(one) for one in axes], axis=0)
    found = np.full(len(positions), "", dtype=object)
    found[~(straight[low] & straight[after])] = SKEWED
    found[~(whole[low] & whole[after])] = NO_SEGMENT
    found[~(seen[low] & seen[high])] = NO_MARKER
    found[~inside] = OUTSIDE
    return found
