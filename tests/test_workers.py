"""Processes and threads that make batches, and what is seen of their end. Workers start new interpreters, so what tests
them is a program of its own."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import small

from data_pipelines.bad_examples import BadExamples
from data_pipelines.loader import train_iterator
from data_pipelines.prepared import open_prepared
from fusion_jax.augmentation import AUGMENTATIONS
from fusion_jax.skeletons import skeleton

ROOT = pathlib.Path(__file__).parent.parent
BEGIN = """
import dataclasses, multiprocessing, os, pathlib, signal, sys, time
from data_pipelines import workers
from data_pipelines.bad_examples import BadExamples
from data_pipelines.loader import train_iterator
from data_pipelines.prepared import open_prepared
from fusion_jax.augmentation import AugmentConfig
from fusion_jax.skeletons import skeleton

class Odd:
    '''Examples of which the tenth does something else, in worker processes and elsewhere.'''
    def __init__(self, examples, act):
        self.examples, self.act = examples, act
    def __len__(self):
        return len(self.examples)
    def __getitem__(self, index):
        return (index == 10 and self.act(self.examples[index])) or self.examples[index]

def iterator(act=lambda example: None, num_workers=2, **options):
    dataset = open_prepared('synthetic_humans', pathlib.Path(sys.argv[1]))
    dataset = dataclasses.replace(dataset, splits={'train': Odd(dataset.split('train'), act)})
    return train_iterator(dataset, target=skeleton('human36m17'), image_size=16, augment=AugmentConfig(), batch_size=4,
                          seed=0, num_workers=num_workers, **options)

def workers_of(data):
    next(data)
    return [p for p in multiprocessing.active_children() if p.name.startswith('grain')]

def until_it_fails(data):
    began = time.monotonic()
    try:
        while time.monotonic() < began + 60:
            next(data)
    except ValueError as error:
        print(type(error).__name__, error)
    data.close()
    print('left:', multiprocessing.active_children())

if __name__ == '__main__':
"""

TRAINS = """
import json, multiprocessing, pathlib, sys
import small
from fusion_jax import train
from fusion_jax.errors import exit_code

real = train.place_batch
count = 0

def place_batch(*args):
    global count
    count += 1
    if count == 3:
        print(json.dumps([p.pid for p in multiprocessing.active_children()]), flush=True)
    return real(*args)

if __name__ == '__main__':
    train.place_batch = place_batch
    options = train.LoopOptions(show=False, workers=2, log_every=10, eval_every=0, checkpoint_every=1000000)
    config = small.config(strategy='image', steps=1000000)
    try:
        train.train(config, *map(pathlib.Path, sys.argv[1:]), options)
    except Exception as error:
        print(error, flush=True)
        sys.exit(exit_code(error))
"""


def program(tmp_path, body):
    script = tmp_path / "program.py"
    script.write_text(BEGIN + "".join(f"    {line}\n" for line in body.strip().splitlines()))
    run = subprocess.run(
        [sys.executable, script, small.data_dir()], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_t14_workers_make_the_same_batches_as_threads_and_a_killed_one_is_an_error_with_its_signal(tmp_path):
    lines = program(
        tmp_path,
        "import numpy as np\n"
        "threads, data = iterator(num_workers=0), iterator()\n"
        "for _ in range(4): np.testing.assert_array_equal(next(threads)['image'], next(data)['image'])\n"
        "data.close()\n"
        "data = iterator(start=4)\n"
        "np.testing.assert_array_equal(next(threads)['image'], next(data)['image'])\n"
        "threads.close()\n"
        "assert 'tensorflow' not in sys.modules\n"
        "os.kill(workers_of(data)[0].pid, signal.SIGKILL)\n"
        "until_it_fails(data)",
    )
    assert lines == [
        "WorkerError a process that prepares training data was killed by signal 9 (SIGKILL); most often memory ran "
        "out: resume with the same command, with fewer --workers or 0",
        "left: []",
    ]


def test_t14_t19_bad_examples_that_workers_meet_are_named_and_counted(tmp_path):
    lines = program(
        tmp_path,
        "bad = BadExamples('skip')\n"
        "data = iterator(lambda example: {**example, 'image': b''}, bad_examples=bad)\n"
        "[next(data) for _ in range(14)]\n"
        "bad.tell(lambda kind, step, numbers, text: print(numbers, text), 1)\n"
        "print(bad.row())\n"
        "data.close()\n"
        "until_it_fails(iterator(lambda example: {**example, 'image': b''}))",
    )
    assert lines[0].startswith("{'dataset': 0, 'example': 10} left out synthetic_humans/16px")
    assert "train example 10: S01/" in lines[0] and "its image does not decode (0 bytes)" in lines[0]
    assert lines[1] == "{'bad_examples': 1}"
    assert lines[2].startswith("UserError synthetic_humans/16px") and "train example 10: S01/" in lines[2]
    assert lines[3] == "left: []"


@pytest.mark.slow
def test_t14_workers_that_end_without_a_word_or_stand_still(tmp_path):
    """Slow because it waits for them."""
    lines = program(
        tmp_path,
        "workers._LAST_WORDS_S = 2.0\n"
        "end = lambda example: multiprocessing.parent_process() is not None and os._exit(0)\n"
        "until_it_fails(iterator(end))\n"
        "data = iterator()\n"
        "[os.kill(worker.pid, signal.SIGSTOP) for worker in workers_of(data)]\n"
        "data._patience_s = 4.0\n"
        "until_it_fails(data)",
    )
    assert lines[0].startswith("WorkerError a process that prepares training data ended with exit code 0;")
    assert lines[2].startswith("WorkerError 2 data workers brought no batch for 4 s and still run;")
    assert lines[1] == lines[3] == "left: []"


@contextlib.contextmanager
def training(script, workdir):
    """(process, the ids of its workers) of a training under way, in a process group of its own."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, script, small.data_dir(), workdir], start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    try:
        workers = json.loads(process.stdout.readline())
        yield process, workers
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def runs(pid):
    with contextlib.suppress(FileNotFoundError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc").exists(), reason="sees processes by /proc")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_t14_workers_end_with_their_trainer_and_not_before(tmp_path, number, code):
    """A signal to the whole group, as a terminal or a scheduler sends it, leaves what makes batches as it is until a
    checkpoint is saved; and where the trainer alone is killed, its workers do not stay."""
    script = tmp_path / "trains.py"
    script.write_text(TRAINS)
    with training(script, tmp_path / "run") as (process, workers):
        assert len(workers) == 2 and all(map(runs, workers))
        if number == signal.SIGKILL:
            process.kill()
        else:
            process.send_signal(signal.SIGSTOP)  # or it could end its workers before they are looked at
            os.killpg(process.pid, number)
            time.sleep(1)
            assert all(map(runs, workers))
            process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=60)  # to the end of all that hold the pipe, workers too
        assert process.returncode == code, said
        if number != signal.SIGKILL:
            assert f"stopped by signal {number} and saved at step" in said
        until = time.monotonic() + 30
        while any(map(runs, workers)) and time.monotonic() < until:
            time.sleep(0.1)
        assert not any(map(runs, workers))


class Raises:
    """Examples that, but for the first, cannot be read for a reason that is nobody's but a programmer's."""

    def __init__(self, first):
        self.first = first

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index:
            raise KeyError("image")
        return self.first


def batches(dataset, augment="full", **options):
    return train_iterator(
        dataset, target=skeleton("human36m17"), image_size=16, augment=AUGMENTATIONS[augment], batch_size=4, seed=0,
        **options,
    )  # fmt: skip


def test_t14_what_a_thread_raises_arrives_and_is_never_skipped():
    dataset = open_prepared("synthetic_humans", small.data_dir())
    broken = dataclasses.replace(dataset, splits={"train": Raises(dataset.split("train")[0])})
    for policy in ("stop", "skip"):
        with pytest.raises(KeyError, match="image"):
            next(batches(broken, bad_examples=BadExamples(policy)))


@pytest.mark.parametrize("augment", ["full", "paper"])
def test_t14_going_back_twice_brings_the_same_batches(augment):
    dataset = open_prepared("synthetic_humans", small.data_dir())
    data = batches(dataset, augment=augment)
    run = [next(data)["image"] for _ in range(20)]  # past the end of the 56 examples
    for _ in range(2):
        for start in (0, 7, 13, 18):
            again = batches(dataset, augment=augment, start=start)
            for pictures in run[start : start + 2]:
                np.testing.assert_array_equal(next(again)["image"], pictures)
            again.close()
    data.close()
