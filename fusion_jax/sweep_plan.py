"""Which runs a sweep trains: every strategy, seed, penalty and start, as the configs that would train them alone."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusion_jax.config import Config
from fusion_jax.errors import UserError, check_field, unknown_name
from fusion_jax.fusion import SINGLE_STREAM, STRATEGIES
from fusion_jax.records import from_json
from fusion_jax.switched import shape_key

LEARNED, FREE = "learned", "free"
_PAIR = ("image", "heatmap")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What a sweep varies; everything else is the base run's."""

    strategies: tuple[str, ...] = STRATEGIES
    """Of fusion.STRATEGIES; `fixed` is trained at every beta in 0 .. L."""
    seeds: int = 5
    """Runs of each kind, seeds 0, 1, ..: they draw first weights and dropout; the data comes in the same order."""
    lambdas: tuple[float, ...] = (0.0, 50.0, 5000.0)
    """Penalties of `learned`, mm^2, beside the base run's."""
    initial_betas: tuple[float, ...] | None = None
    """Starts of beta of `learned`, beside the middle; none: the first and the last layer."""
    final_alphas: tuple[float, ...] = (20.0,)
    """`learned` with alpha led to so much in the second half of the steps, so that it ends sharp."""

    def __post_init__(self):
        for name in self.strategies:
            if name not in STRATEGIES:
                raise unknown_name("strategy", name, STRATEGIES)
        check_field(bool(self.strategies), "strategies", self.strategies, "at least one")
        check_field(1 <= self.seeds <= 1000, "seeds", self.seeds, "1 to 1000")


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep."""

    label: str
    """What it is, the same for every seed, such as `fixed at 2`."""
    config: Config

    @property
    def slug(self) -> str:
        """Its name as a file's."""
        return f"{re.sub('[^a-z0-9.]+', '_', self.label.lower()).strip('_')}_seed{self.config.seed}"


def sweep_members(base: Config, sweep: SweepConfig) -> list[Member]:
    """The runs of a sweep around `base`, kinds in a table's order, seeds innermost.

    Raises:
      UserError: the base run is of a 2D network, predicts its heatmaps, or a value is out of range.
    """
    if base.heatmaps.source == "predicted":
        raise UserError("a sweep trains on true or noisy heatmaps; those of a 2D network are for single runs")
    if base.init_from is not None or base.fusion.live is not None:
        raise UserError("the members of a sweep start anew, whole; leave --init-from away")
    if base.optim.skip_dead is not None:
        raise UserError(
            "the members of a sweep share one step, and each has dead layers of its own; leave skip_dead away"
        )
    data_seed = base.drawn_by
    kinds = dict.fromkeys(_kinds(base, sweep))
    return [
        Member(label, dataclasses.replace(config, seed=seed, data_seed=data_seed))
        for label, config in kinds
        for seed in range(sweep.seeds)
    ]


def groups(members: Sequence[Member]) -> list[list[Member]]:
    """The members that one compiled program trains, largest group first, those of one stream last."""
    found: dict[tuple, list[Member]] = {}
    for member in members:
        found.setdefault(shape_key(member.config), []).append(member)
    return sorted(found.values(), key=lambda group: -len(group))


def members_of(plan: Mapping[str, Any]) -> list[Member]:
    """The members that a sweep.json names. Raises UserError where it is not as a sweep writes it."""
    return [
        Member(entry["label"], from_json(Config, entry["config"], f"sweep.json: members.{slug}.config"))
        for slug, entry in plan["members"].items()
    ]


def fixed_label(beta: float) -> str:
    """What the members of strategy `fixed` at a beta are called."""
    return f"fixed at {beta:g}"


def _exact(value: float) -> str:
    """A number in as few digits as tell it from all others."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _kinds(base: Config, sweep: SweepConfig) -> Iterator[tuple[str, Config]]:
    """(label, config) of each kind of run; what comes twice is the same."""
    network, optim = base.fusion, base.optim
    depth = len(network.streams[0].layers)

    def variant(strategy: str, beta: float | None = None, streams=network.streams, **settings) -> Config:
        changed = dataclasses.replace(network, streams=streams, strategy=strategy, beta=beta)
        if strategy != "learned":
            settings["alpha_final"] = None  # which only `learned` knows
        return dataclasses.replace(base, network=changed, optim=dataclasses.replace(optim, **settings))

    if "learned" in sweep.strategies:
        yield LEARNED, variant("learned", network.beta if network.strategy == "learned" else None)
        for weight in sweep.lambdas:
            if weight != optim.alpha_penalty_weight:
                yield f"learned, lambda {_exact(weight)}", variant("learned", alpha_penalty_weight=weight)
        own_start = (depth + 1) / 2 if network.strategy != "learned" or network.beta is None else network.beta
        for beta in (1.0, float(depth)) if sweep.initial_betas is None else sweep.initial_betas:
            if beta != own_start:
                yield f"learned, from beta {_exact(beta)}", variant("learned", beta)
        for alpha in sweep.final_alphas:
            yield f"learned, alpha led to {_exact(alpha)}", variant("learned", alpha_final=alpha)
        for extra in [stream for stream in network.streams if stream.name not in _PAIR]:
            others = tuple(stream for stream in network.streams if stream != extra)
            if len(others) > 1:
                yield f"learned, without {extra.name}", variant("learned", streams=others)
    if "free" in sweep.strategies:
        yield FREE, variant("free")
    if "fixed" in sweep.strategies:
        for layer in range(depth + 1):
            yield fixed_label(layer), variant("fixed", float(layer))
    names = [stream.name for stream in network.streams]
    for name in SINGLE_STREAM:
        if name in sweep.strategies and (name in names or sweep.strategies != STRATEGIES):  # a missing one is refused
            yield name, variant(name)
