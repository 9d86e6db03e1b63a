"""Protocols: who trains, who is tested, on which frames and joints, how aligned, a mean over what.

A number without these says little: "protocol 2" alone means three different things on Human3.6M. So a protocol is an
object, and `protocol_tables` prints its words under every table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fusion_jax.errors import UserError, unknown_name
from fusion_jax.parts import LIMB_JOINTS, LIMBS, Groups, Parts
from fusion_jax.skeletons import SKELETONS, Skeleton


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One way of measuring, in words for the reader and as data for the code.

    Attributes:
      name: key in `PROTOCOLS`.
      dataset, train, test, frames, joints, root, alignment, mean, source: in words, printed under every table.
      notes: what else a reader must know, a sentence each.
      train_subjects, test_subjects, cameras: who and what is expected; empty where the protocol does not say.
      frame_step: one frame in so many is tested; None where the protocol does not say.
      skeleton: the layout of the scored poses; "" where any that has the joints will do.
      root_joints: whose mean is the origin; empty where it has no influence.
      columns: the distances of its tables, named as `tables.COLUMNS`.
      actions: the rows, in the paper's order; frames of other actions are in no row.
      action_means: (row, actions) whose mean it is.
      by_subject: a row for every subject and action, and an action's mean over subjects.
      by_camera: a table for every camera, too.
      excluded: (sequence, camera) of frames that the clean table leaves out; camera "" for all of a sequence.
      parts: (class, pairs of joints) for PCP.
      dims: 3 to score parts and joints on the poses, 2 on the pictures.
      joint_groups: (group, joints) for PCK.
      pck_column, pck_threshold, pck_scale: what its share is called, and of which length it is the threshold: a pair
        of joints, or empty for `head_size_px` of the labels.
    """

    name: str
    dataset: str
    train: str
    test: str
    frames: str
    joints: str
    root: str
    alignment: str
    mean: str
    source: str
    notes: tuple[str, ...] = ()
    train_subjects: tuple[str, ...] = ()
    test_subjects: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    frame_step: int | None = None
    skeleton: str = ""
    root_joints: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    action_means: Groups = ()
    by_subject: bool = False
    by_camera: bool = False
    excluded: tuple[tuple[str, str], ...] = ()
    parts: Parts = ()
    dims: int = 3
    joint_groups: Groups = ()
    pck_column: str = ""
    pck_threshold: float = 0.0
    pck_scale: tuple[str, ...] = ()

    def words(self) -> dict[str, str]:
        """The protocol for a reader, in the order in which it is printed."""
        fields = ("dataset", "train", "test", "frames", "joints", "root", "alignment", "mean", "source")
        words = {"protocol": self.name} | {field: getattr(self, field) for field in fields}
        return words | {f"note {number}": note for number, note in enumerate(self.notes, 1)}

    def faulty(self, sequence: np.ndarray, camera: np.ndarray) -> np.ndarray:
        """(N,) bool: the frames that the clean table leaves out, by their (N,) sequences and cameras."""
        found = np.zeros(len(sequence), bool)
        for name, seen_by in self.excluded:
            found |= (sequence == name) & ((camera == seen_by) | (seen_by == ""))
        return found

    def differences(
        self,
        labels: Mapping[str, np.ndarray],
        skeleton: Skeleton,
        training_subjects: Sequence[str] | None,
        description: Mapping[str, Any],
    ) -> list[str]:
        """A sentence for everything in which an evaluation is not the protocol; what is not known is not compared.

        Args:
          labels: `subject` and `camera_name` (N,) of the scored frames.
          skeleton: of the poses.
          training_subjects: who the network was trained on; None where unknown.
          description: of the dataset, whose `frame_step` counts.
        """
        compared: dict[str, tuple[Iterable, Iterable]] = {
            "test subjects": (labels["subject"].tolist(), self.test_subjects),
            "cameras": (labels["camera_name"].tolist(), self.cameras),
            "skeleton": ([skeleton.name], filter(None, [self.skeleton])),
            "root": (skeleton.root, self.root_joints),
        }
        if training_subjects is not None:
            compared["training subjects"] = (training_subjects, self.train_subjects)
        if self.frame_step is not None and "frame_step" in description:
            compared["frame step"] = ([description["frame_step"]], [self.frame_step])
        named = {what: (_names(given), _names(expected)) for what, (given, expected) in compared.items()}
        return [
            f"differs from the protocol: {what} {given or 'none'} instead of {expected}"
            for what, (given, expected) in named.items()
            if expected and given != expected
        ]

    def check_joints(self, skeleton: Skeleton) -> None:
        """Raises UserError, naming the joints that the measures need and `skeleton` lacks."""
        needed = [joint for _, pairs in self.parts for pair in pairs for joint in pair]
        needed += [joint for _, joints in self.joint_groups for joint in joints] + list(self.pck_scale)
        missing = [joint for joint in dict.fromkeys(needed) if joint not in skeleton.joints]
        if missing:
            fitting = [name for name, layout in SKELETONS.items() if set(needed) <= set(layout.joints)]
            raise UserError(
                f"protocol {self.name} scores {', '.join(missing)}, which skeleton {skeleton.name} lacks; "
                f"convert the joints to one that has them: {', '.join(sorted(fitting))}"
            )


ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether",
)  # fmt: skip
_HUMANEVA_ACTIONS = ("Walking", "Jog", "Box", "ThrowCatch", "Gestures")


def _names(values: Iterable) -> str:
    """Each once, S9 before S11."""
    return ", ".join(sorted({str(value) for value in values}, key=lambda name: (len(name), name)))


_FRAME_MEANS = (
    "a frame's is over its known joints, the root counted; an action's over its frames; action mean: over the actions "
    "that have frames; frame mean: over all frames"
)
_PCP = (
    "a part is right where its ends are on average (pcp), or each (pcp_strict), at most half its true length off; "
    "a class's share is the mean of left and right, all is the mean of the four classes"
)
_FLAT = "2D: the predicted pose's x and y, scaled and moved onto the true 2D joints per picture, not turned"
_PARTS_LEFT_OUT = "pelvis, torso and head are not scored: which joints others pair for them is unconfirmed"
_PCK = "a group's share is the mean of its joints' shares; total is over all its joints, each known one counted once"

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "human36m",
            dataset="Human3.6M",
            train="S1, S5, S6, S7, S8",
            test="S9, S11; every camera by itself",
            frames="every 5th (10 a second), as the paper's group; others take every frame or every 64th",
            joints="17, the root counted",
            root="pelvis",
            alignment="mpjpe: none; pa_mpjpe: rotation, translation and scale per frame, no mirror images; "
            "pa_mpjpe_reflection: mirror images too, as the paper's release",
            mean=_FRAME_MEANS,
            source="Tekin, Márquez-Neila, Salzmann, Fua, ICCV 2017",
            notes=(
                "clean leaves out what is known to be faulty: S9 Greeting, SittingDown 1 and Waiting 1, whose 3D "
                "joints are shifted, and S11 Directions of camera 54138969, whose video is broken; a bare name is "
                "recording 2",
            ),
            train_subjects=("S1", "S5", "S6", "S7", "S8"),
            test_subjects=("S9", "S11"),
            cameras=("54138969", "55011271", "58860488", "60457274"),
            frame_step=5,
            skeleton="human36m17",
            root_joints=("pelvis",),
            columns=("mpjpe_mm", "pa_mpjpe_mm", "pa_mpjpe_reflection_mm"),
            actions=ACTIONS,
            action_means=(("action mean", ACTIONS),),
            excluded=(
                ("S9/Greeting", ""),
                ("S9/SittingDown 1", ""),
                ("S9/Waiting 1", ""),
                ("S11/Directions", "54138969"),
            ),
        ),
        Protocol(
            "humaneva",
            dataset="HumanEva-I",
            train="S1, S2, S3: the training part of trial 1",
            test="S1, S2, S3: the validation part of trial 1, as the test part's poses are withheld; camera C1",
            frames="those with valid motion capture",
            joints="15, the root counted",
            root="pelvis",
            alignment="mpjpe: none; pa_mpjpe: rotation, translation and scale per frame, no mirror images",
            mean=f"{_FRAME_MEANS}; an action without a subject: over the subjects that have frames",
            source="Tekin, Márquez-Neila, Salzmann, Fua, ICCV 2017; Sigal, Balan, Black, IJCV 2010",
            notes=(
                "which actions the paper's table lists is unconfirmed; Walking, Jog and Box are usual",
                "S3 ThrowCatch 1 has damaged motion capture and is usually left out; in S3 Walking 1 the head point "
                "lies on the chest in most frames",
                "the dataset's own error averages two points where an elbow or knee is made of two, a little more",
            ),
            train_subjects=("S1", "S2", "S3"),
            test_subjects=("S1", "S2", "S3"),
            cameras=("C1",),
            skeleton="humaneva15",
            root_joints=("pelvis",),
            columns=("mpjpe_mm", "pa_mpjpe_mm"),
            actions=_HUMANEVA_ACTIONS,
            action_means=(("mean of Walking, Jog, Box", _HUMANEVA_ACTIONS[:3]), ("action mean", _HUMANEVA_ACTIONS)),
            by_subject=True,
        ),
        Protocol(
            "kth_football2",
            dataset="KTH Multiview Football II",
            train="player 2: the first half of the frames",
            test="player 2: the second half of the frames",
            frames="every frame of one sequence; which of player 2's two the paper used is unconfirmed",
            joints="the 12 of the limbs",
            root="mean of both hips",
            alignment="none but the common root",
            mean=f"3D; {_PCP}",
            source="Tekin, Márquez-Neila, Salzmann, Fua, ICCV 2017; Burenius, Sullivan, Carlsson, CVPR 2013",
            notes=("the paper trains and tests on camera 1 alone: compare it with that table", _PARTS_LEFT_OUT),
            train_subjects=("player2",),
            test_subjects=("player2",),
            cameras=("Camera 1",),
            frame_step=1,
            root_joints=("right_hip", "left_hip"),
            by_camera=True,
            parts=LIMBS,
        ),
        Protocol(
            "lsp",
            dataset="Leeds Sports Pose",
            train="anything but the test pictures; the paper: synthetic pictures alone",
            test="im1001 to im2000",
            frames="every picture",
            joints="pcp: the 12 of the limbs; pck: 14",
            root="none, the joints are 2D",
            alignment=_FLAT,
            mean=f"{_PCP}; pck: joints within 0.2 of the torso, from right shoulder to left hip in truth; {_PCK}",
            source="Johnson, Everingham, BMVC 2010",
            notes=("the paper shows pictures of this dataset and gives no number", _PARTS_LEFT_OUT),
            parts=LIMBS,
            dims=2,
            joint_groups=(("head", ("head_top", "neck")), *LIMB_JOINTS),
            pck_column="pck_0.2_torso_percent",
            pck_threshold=0.2,
            pck_scale=("right_shoulder", "left_hip"),
        ),
        Protocol(
            "mpii",
            dataset="MPII Human Pose",
            train="the training people but the validation ones",
            test="the usual 2,958 validation people, as the test people's joints are withheld",
            frames="every person with a head box",
            joints="14 of 16: pelvis and thorax are not scored, nor in the total",
            root="none, the joints are 2D",
            alignment=_FLAT,
            mean=f"joints within half the head's length, 0.6 of the diagonal of the head box; {_PCK}",
            source="Andriluka, Pishchulin, Gehler, Schiele, CVPR 2014",
            notes=("head: head top and upper neck, as the dataset's own tool has it; others count head top alone",),
            dims=2,
            joint_groups=(("head", ("head_top", "upper_neck")), *LIMB_JOINTS),
            pck_column="pckh_0.5_percent",
            pck_threshold=0.5,
        ),
    )
}


def protocol(name: str) -> Protocol:
    """The protocol called `name`. Raises UserError, listing the known names."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
