"""The TFDS builder of `synthetic_humans`: needs no download and no TensorFlow."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_pipelines.schema import pose_features
from data_pipelines.synthetic_humans.frames import CAMERAS, examples, shots
from data_pipelines.synthetic_humans.sequences import (
    SPLITS,
    SyntheticSettings,
    family,
    load_motion,
    motion_digest,
    overlapping_performers,
    performers,
    sequences,
    split_subjects,
    subject_name,
)


class SyntheticHumansConfig(tfds.core.BuilderConfig):
    """A TFDS config named after the settings it carries."""

    def __init__(self, settings: SyntheticSettings):
        super().__init__(name=config_name(settings), description="articulated people, ray-cast")
        self.settings = settings


def config_name(settings: SyntheticSettings) -> str:
    """Such as '64px_16s_16f_5fps_seed0', with '_mocap1a2b3c4d' for the motion files' digest."""
    s = settings
    name = f"{s.size}px_{s.num_subjects}s_{s.frames}f_{s.fps:g}fps_seed{s.seed}"
    if s.motion:
        name += f"_mocap{motion_digest(s.motion)}"
    return name + "".join(f"_test{performer}" for performer in sorted(s.test_performers))


class SyntheticHumans(tfds.core.GeneratorBasedBuilder):
    """Rendered people who act out named actions before four cameras; splits are by person."""

    VERSION = tfds.core.Version("1.3.0")
    RELEASE_NOTES = {
        "1.3.0": "Examples have a label map of body parts.",
        "1.2.0": "The head's size is the head's; it was 0, unknown.",
        "1.1.0": "Examples tell the camera's model and the head's size.",
        "1.0.0": "First release.",
    }
    BUILDER_CONFIGS = [SyntheticHumansConfig(SyntheticSettings())]
    pkg_dir_path = pathlib.Path(__file__).parent  # where TFDS looks for CITATIONS.bib and the README

    @property
    def settings(self) -> SyntheticSettings:
        """What this config draws."""
        return self.builder_config.settings

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=pose_features(17, self.settings.size, parts=True),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        settings = self.settings
        clips = load_motion(settings)
        subjects = {k: [subject_name(n) for n in v] for k, v in split_subjects(settings.num_subjects).items()}
        description: dict[str, Any] = {
            "frames": f"{settings.frames} of each sequence at {settings.fps:g} fps",
            "cameras": "4 around each person, each view on its own",
            "motion": "procedural actions" if clips is None else "captured clips on the people's own bones",
        }
        if clips is not None:
            description |= {f"{split} performers": names for split, names in performers(clips).items()}
            if overlapping_performers(clips):
                description["warning"] = "one performer only: train and test people act out the same clips"
        self.info.metadata.update(
            skeleton="human36m17",
            family=family(settings.seed),
            image_size=settings.size,
            subjects=subjects,
            description=description,
            settings=dataclasses.asdict(dataclasses.replace(settings, motion=pathlib.Path(settings.motion).name)),
        )
        return {split: self._generate_examples(split, clips) for split in SPLITS}

    def _generate_examples(self, split: str, clips: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        settings = self.settings
        acted = list(sequences(settings, split, clips))
        total = sum(CAMERAS * len(sequence.joints_mm) for sequence in acted)
        frames = (shot for sequence in acted for shot in shots(sequence, settings))
        shown = tqdm(examples(frames, settings.size), total=total, desc=split, unit="frame", disable=None)
        for key, example in shown:
            yield key, {**example, "frame": np.int64(example["frame"])}
