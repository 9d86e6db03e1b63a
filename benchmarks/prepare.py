"""Preparing Human3.6M from raw files: frames per second decoded and written, memory, and how long all of it would take.

The files are made up in the dataset's true formats (a made-up person before its four cameras), so that no licence is
needed. Starting the processes is timed apart, on the same files with one frame each.

python benchmarks/prepare.py
"""

import dataclasses
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import threading
import time

import cv2
import numpy as np
import tyro
from timing import header

from data_pipelines.human36m.dummy_data import write_dummy
from data_pipelines.human36m.dummy_files import write_cdf, write_video
from data_pipelines.human36m.sequences import TRAIN_SUBJECTS, read_table
from data_pipelines.human36m.settings import Human36mSettings
from data_pipelines.human36m.source import Human36mSource
from data_pipelines.shards import write_shards
from data_pipelines.video import Video


@dataclasses.dataclass(frozen=True)
class Args:
    """Time the preparation of raw data."""

    frames: int = 600
    """Of each of the four videos; a hundred are rendered and then repeated."""
    size: int = 128
    """Side of the pictures, px."""
    workers: tuple[int, ...] = (1, 2)
    frame_steps: tuple[int, ...] = (5, 1)
    repeats: int = 3
    """Of each run; the median counts."""


def main(args: Args) -> None:
    print(header())
    print(f"numpy {np.__version__}, OpenCV {cv2.__version__}; MPEG-4 part 2, 1000 x 1000 px, crops {args.size} px")
    everything = sum(sequence.rows for sequence in read_table()) * 4
    train = sum(sequence.rows for sequence in read_table() if sequence.subject in TRAIN_SUBJECTS) * 4
    with tempfile.TemporaryDirectory() as folder:
        raw = pathlib.Path(folder) / "raw"
        frames = write_raw(raw, args.frames)
        alone = statistics.median(decode_all(raw) for _ in range(args.repeats))
        print(f"{frames} frames in 4 videos; decoding alone, one process: {frames / alone:.0f} frames/s")
        for workers in args.workers:
            start, _ = measure(raw, args, 10_000, workers)
            for step in args.frame_steps:
                whole, peak = measure(raw, args, step, workers)
                took = max(whole - start, 1e-3)
                print(
                    f"workers {workers}, step {step}: start {start:.1f} s, then {frames / took:.0f} frames/s decoded, "
                    f"{frames / step / took:.0f} written; peak {peak:.0f} MB a process; all {everything} frames "
                    f"({train} of them for training): {everything * took / frames / 3600:.1f} h"
                )
    print(f"load at the end {os.getloadavg()[0]:.1f}")


def write_raw(raw: pathlib.Path, rows: int) -> int:
    """A sequence of `rows` frames and poses in four videos; returns the number of frames in all."""
    truth = write_dummy(raw, {"S9": ("Walking",)}, rows=min(rows, 100), extra_frames=0, optional=False)
    joints = truth.joints_world_mm["S9/Walking"]
    order = np.arange(rows) % len(joints)
    write_cdf(raw / "S9/MyPoseFeatures/D3_Positions/Walking.cdf", joints[order].reshape(1, rows, -1))
    truth.table.write_text(f"S9\tWalking\t1\tWalking\t{rows}\n")
    videos = sorted((raw / "S9/Videos").glob("Walking*"))
    for path in videos:
        with Video(path) as video:
            pictures = [picture for _, picture in video.frames(np.arange(len(joints)))]
        write_video(path, (pictures[n] for n in order), pictures[0].shape[1::-1])
    return rows * len(videos)


def decode_all(raw: pathlib.Path) -> float:
    """Seconds that reading every frame of every video takes in this process."""
    began = time.perf_counter()
    for path in sorted((raw / "S9/Videos").glob("Walking*")):
        with Video(path) as video:
            for _ in video.frames(np.arange(video.num_frames)):
                pass
    return time.perf_counter() - began


def measure(raw: pathlib.Path, args: Args, step: int, workers: int) -> tuple[float, float]:
    """Median seconds from raw files to finished shards, and the most memory that one process held, MB."""
    table = str(raw / "sequences.txt")
    source = Human36mSource(raw, Human36mSettings(size=args.size, frame_step=step, subjects=("S9",), table=table))
    peaks, took = [0.0], []
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(done, peaks))
    watcher.start()
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as work:
            began = time.perf_counter()
            write_shards(source, source.parts(), pathlib.Path(work), workers=workers, strict=True, show=False)
            took.append(time.perf_counter() - began)
    done.set()
    watcher.join()
    return statistics.median(took), max(peaks)


def watch(done: threading.Event, peaks: list[float]) -> None:
    """Notes the peak resident memory of this process' children, MB, until done; Linux only, else nothing."""
    while not done.wait(0.1):
        for child in multiprocessing.active_children():
            try:
                lines = pathlib.Path(f"/proc/{child.pid}/status").read_text().splitlines()
            except OSError:
                continue
            peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]


if __name__ == "__main__":
    main(tyro.cli(Args))
