"""The commands around the 2D network and prediction: `predict`, `import-hourglass`, `import-release`."""

from __future__ import annotations

import dataclasses
import pathlib

import tyro

from fusion_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Predict:
    """3D poses of the people in your pictures, folders and videos.

    fusion-jax predict photo.jpg --workdir runs/demo/learned --heatmap-workdir runs/demo/hourglass --out out

    fusion-jax predict holiday/ walk.mp4 --workdir RUN --heatmap-workdir RUN2 --smooth --out out

    Writes OUT/<picture>.json and .png; OUT/index.html, to turn the poses by hand, and OUT/poses.npz for all pictures;
    OUT/<video>.mp4, .jsonl and .npz. The same command goes on where it was stopped. Poses are in mm, relative to the
    pelvis, in the camera's frame: x right, y down, z away. One photo tells neither size nor distance: docs/frames.md.
    """

    inputs: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Pictures, videos, and folders of them."""
    workdir: pathlib.Path
    """Folder of a trained fusion network."""
    heatmap_workdir: pathlib.Path | None = None
    """Folder of a trained 2D network; none: the one that the fusion network was trained with."""
    box: tuple[str, ...] = ()
    """Where a person is, x,y,width,height in px of the upright picture, in every input; several for several people.
    None: people are looked for, and where none is found the whole picture is taken for one person."""
    boxes: pathlib.Path | None = None
    """JSON of boxes by file name, or by path as given: {"photo.jpg": [[x, y, width, height]]}."""
    camera: pathlib.Path | None = None
    """JSON of the camera that took all of them, for absolute positions: fx, fy, cx, cy in px (or a 3 x 3 intrinsics),
    and if known distortion [k1, k2, p1, p2, k3], image_size [width, height], rotation (3 x 3) and center_mm."""
    out: pathlib.Path = pathlib.Path("out")
    """Folder for the results."""
    detect: bool = True
    """Look for people where no box is given."""
    refine: bool = True
    """Set the crop of a box that you did not give anew around the joints seen in it, and look again."""
    smooth: bool = False
    """Take jitter out of videos (One-Euro filter)."""
    batch_size: int = 8
    """People, and frames of a video, at a time."""

    def run(self) -> int:
        from fusion_jax.given_boxes import read_boxes
        from fusion_jax.people import parse_box
        from fusion_jax.place import read_camera
        from fusion_jax.predict import predict_files
        from fusion_jax.predictor import Predictor
        from fusion_jax.records import one_line

        boxes = {} if self.boxes is None else read_boxes(self.boxes)
        if self.box and "*" in boxes:
            raise UserError(f"--box says where people are in every input, and '*' in {self.boxes} too; leave one away")
        if self.box:
            boxes["*"] = [parse_box(text) for text in self.box]
        camera = None if self.camera is None else read_camera(self.camera)
        predictor = Predictor(
            self.workdir,
            self.heatmap_workdir,
            batch_size=self.batch_size,
            camera=camera,
            detect=self.detect,
            refine=self.refine,
        )
        for note in predictor.notes:
            print(f"note: {one_line(note)}")
        outcome = predict_files(self.inputs, predictor, self.out, boxes=boxes, smooth=self.smooth)
        for note in outcome.notes:
            print(f"note: {note}")
        for text in outcome.failed:
            print(f"left out: {text}")
        kept = f", {outcome.kept} were there already" if outcome.kept else ""
        print(
            f"{outcome.people} people; {outcome.made} inputs done{kept}, {len(outcome.failed)} failed; "
            f"written to {one_line(str(outcome.page or self.out))}"
        )
        return 1 if outcome.failed else 0


@dataclasses.dataclass(frozen=True)
class ImportHourglass:
    """Turn a public PyTorch checkpoint of the stacked hourglass into a 2D network of ours.

    fusion-jax import-hourglass checkpoint.pt --out runs/hourglass-2

    Weights alone are read, by a reader that runs nothing of the file; PyTorch is not needed.
    """

    checkpoint: tyro.conf.Positional[pathlib.Path]
    """File of the repository princeton-vl/pytorch_stacked_hourglass, 2 or 8 stacks."""
    out: pathlib.Path
    """Work folder to write."""

    def run(self) -> None:
        from fusion_jax.import_hourglass import import_hourglass

        if (self.out / "config.json").exists():
            raise UserError(f"{self.out} holds a run already; choose another --out")
        print(f"written {import_hourglass(self.checkpoint, self.out)}")
        print(
            f"to score it: fusion-jax evaluate --workdir {self.out} --dataset mpii; to train it on: fusion-jax train "
            f"--task heatmaps --init-from {self.out} (on MPII itself with --train-split train+validation)"
        )


@dataclasses.dataclass(frozen=True)
class ImportRelease:
    """Turn the model that the paper's authors published into a run of ours.

    fusion-jax import-release h36m_model_A_14.npz --out runs/release

    Arrays alone are read, by a reader that runs nothing of the file; Theano and Python 2 are not needed.
    """

    params: tyro.conf.Positional[pathlib.Path]
    """NPZ file of the repository romanus/code_tekinetal_iccv17, of its network type 1 or 2."""
    out: pathlib.Path
    """Work folder to write."""

    def run(self) -> None:
        from fusion_jax.import_release import import_release

        if (self.out / "config.json").exists():
            raise UserError(f"{self.out} holds a run already; choose another --out")
        print(f"written {import_release(self.params, self.out)}")
        print(
            f"to score it as its authors did: fusion-jax evaluate --workdir {self.out} --dataset tekin_release "
            f"--protocol release; for photos: fusion-jax predict photo.jpg --workdir {self.out} --heatmap-workdir RUN"
        )
