"""What a finished member of a sweep is written down as, read back strictly."""

from __future__ import annotations

import dataclasses
import pathlib

from fusion_jax.errors import UserError
from fusion_jax.fusion import LiveLayers
from fusion_jax.records import from_json, read_json, to_json, write_json


@dataclasses.dataclass(frozen=True)
class NetworkCost:
    """Of one forward pass of one picture."""

    parameters: int
    gflops: float


@dataclasses.dataclass(frozen=True)
class RSquared:
    """Mean squared correlation of channel pairs at the last convolution, within the data streams and across them."""

    within: float
    across: float


@dataclasses.dataclass(frozen=True)
class MemberResult:
    """One run's scores and costs."""

    label: str
    seed: int
    strategy: str
    split: str
    num_frames: int
    mpjpe_mm: float
    pa_mpjpe_mm: float
    alpha: float | None
    """Of `learned`."""
    beta: float | None
    """Of `learned` where it ended, of `fixed` the layer."""
    weights: tuple[float, ...]
    """(L,) w_l; of a single stream as late fusion."""
    whole: NetworkCost
    alive: NetworkCost
    """Once layers that weights within `eps` of 0 or 1 leave unread are cut out."""
    eps: float
    live: LiveLayers | None
    """What is left then; None where the strategy builds no other."""
    r_squared: RSquared | None = None


def write_result(path: pathlib.Path, result: MemberResult) -> None:
    """Writes a member's result; atomically."""
    write_json(path, to_json(result))


def read_result(path: pathlib.Path) -> MemberResult:
    """A member's result. Raises UserError where the file is not as `write_result` leaves it, and says what to do."""
    try:
        return from_json(MemberResult, read_json(path), path.name)
    except UserError as error:
        raise UserError(f"{path}: {error}; delete the file, and the same sweep command makes it again") from None
