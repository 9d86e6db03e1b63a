"""The doctor: finds nothing wrong where nothing is, and names what was broken on purpose, whatever the way."""

import json
import os
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
import small
from withheld import withhold

from data_pipelines.prepared import find_prepared
from fusion_jax import doctor, doctor_data, doctor_host, doctor_jax, sharding
from fusion_jax.checkpoint import Checkpoints
from fusion_jax.cli import main
from fusion_jax.doctor import Examined, apart, report_line, summary
from fusion_jax.finding import Finding, run_check

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def data(tmp_path):
    """A data folder to break, and the folder of the dataset's version in it."""
    shutil.copytree(small.data_dir(), tmp_path / "data")
    return tmp_path / "data", find_prepared("synthetic_humans", tmp_path / "data")


def statuses(findings):
    return {finding.name: finding.status for finding in findings}


class TestTheWholeProgram:
    """In real processes. What is compiled for the trial steps, an earlier test has compiled where it ran."""

    @pytest.fixture(autouse=True)
    def four_devices(self, monkeypatch):
        monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")

    def test_all_is_well(self, tmp_path, capsys):
        args = ["doctor", "--data-dir", small.data_dir(), "--workdir", tmp_path / "new" / "run"]
        capsys.readouterr()
        assert main(list(map(str, args))) == 0
        out = capsys.readouterr().out
        lines = [line for line in out.splitlines() if not line.startswith(" ")]
        names = ["versions", "tested versions", "memory", "data disk", "work disk", "shared memory", "compile cache"]
        names += ["video", "imports", "devices", "training", "checkpoint", "data synthetic_humans/"]
        assert [line[9:].startswith(name) for line, name in zip(lines, names, strict=False)] == [True] * len(names)
        assert "4 x cpu: " in out and "s with compiling, then" in out and "the same bit for bit" in out
        assert "train 56, validation 56, test 56 examples" in out and lines[-1].startswith("nothing to mend")
        assert not list(tmp_path.iterdir()), "nothing is left behind, and nothing made"

    def test_no_device_and_no_data(self, tmp_path, monkeypatch, capfd):
        monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
        args = ["doctor", "--json", "--data-dir", tmp_path / "none", "--manual-dir", tmp_path, "--dataset", "lsp"]
        assert main(list(map(str, args))) == 1
        out, err = capfd.readouterr()
        found = {entry["name"]: entry for entry in json.loads(out)}
        status = {name: entry["status"] for name, entry in found.items()}
        assert [name for name in status if status[name] == "problem"] == [
            *("devices", "training", "checkpoint", "files of lsp")
        ]
        assert "JAX_PLATFORMS=nonsense" in found["devices"]["text"] and "nvidia-smi" in found["devices"]["advice"]
        assert status["data"] == "warning" and "fusion-jax prepare" in found["data"]["advice"]
        assert "check-data lsp" in found["files of lsp"]["advice"] and "Traceback" not in out + err

    def test_jax_cannot_be_loaded(self, tmp_path, monkeypatch):
        (tmp_path / "jax").mkdir()
        (tmp_path / "jax" / "__init__.py").write_text("raise ImportError('built for another NumPy')\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
        found = list(apart(["imports", "devices", "checkpoint"], Examined(data_dir=tmp_path)))
        assert statuses(found) == {"imports": "problem", "devices": "problem", "checkpoint": "problem"}
        assert "jax (ImportError: built for another NumPy)" in found[0].text and "jaxlib" in found[0].advice
        assert "built for another NumPy" in found[1].text


class TestAProcessThatBreaks:
    FAKE = (
        "import os, signal, sys, time\n"
        "for name in sys.argv[2:]:\n"
        "    print('begin noise', flush=True); print('fusion-jax-doctor begin', name, flush=True)\n"
        "    if name == 'crash': sys.stderr.write('bad instruction\\n'); sys.stderr.flush(); "
        "os.kill(os.getpid(), signal.SIGILL)\n"
        "    if name == 'hang': time.sleep(60)\n"
        "    if name == 'leave': sys.exit(7)\n"
        '    print(\'fusion-jax-doctor found {"name": "%s", "status": "ok", "text": "fine"}\' % name, flush=True)\n'
        "    print('fusion-jax-doctor end', name, flush=True)\n"
        "    if name == 'between': os._exit(3)\n"
    )

    def found(self, *names, code=FAKE, patience_s=20.0):
        return list(apart(names, Examined(), [sys.executable, "-c", code], patience_s))

    def test_a_crash_is_a_finding_and_the_checks_after_it_run(self):
        found = self.found("one", "crash", "two", "leave", "three")
        assert [f.name for f in found] == ["one", "crash", "two", "leave", "three"]
        assert [f.status for f in found] == ["ok", "problem", "ok", "problem", "ok"]
        assert (
            "signal SIGILL" in found[1].text and "bad instruction" in found[1].text and "exit code 7" in found[3].text
        )

    def test_a_crash_between_two_checks_loses_none(self):
        found = self.found("one", "between", "two", "between")
        assert [(f.name, f.status) for f in found] == [(n, "ok") for n in ("one", "between", "two", "between")]

    def test_a_hang_is_ended(self):
        found = self.found("one", "hang", "two", patience_s=1.0)
        assert [f.status for f in found] == ["ok", "problem", "ok"] and "nothing was heard for 1 s" in found[1].text

    def test_one_that_does_not_begin_is_not_tried_for_ever(self):
        found = self.found("one", "two", code="raise SystemExit('no such thing')")
        assert len(found) == 1 and found[0].name == "start" and "no such thing" in found[0].text


class TestDevices:
    def test_what_is_there(self, tmp_path):
        found = doctor_jax.devices(tmp_path)
        assert found.status == "ok" and found.text == "4 x cpu (cpu)"

    @pytest.mark.parametrize(("file", "extra"), [("nvidia0", "cuda"), ("accel0", "tpu")])
    def test_an_accelerator_that_jax_does_not_see(self, tmp_path, monkeypatch, file, extra):
        (tmp_path / file).touch()
        monkeypatch.delenv("JAX_PLATFORMS", raising=False)
        monkeypatch.setattr(doctor_jax.importlib.util, "find_spec", lambda name: None)
        found = doctor_jax.devices(tmp_path)
        assert found.status == "warning" and f"[{extra}]'" in found.advice and "pip install" in found.advice
        monkeypatch.setattr(doctor_jax.importlib.util, "find_spec", lambda name: "there")
        assert "did not start it" in doctor_jax.devices(tmp_path).advice
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")
        assert "unset JAX_PLATFORMS" in doctor_jax.devices(tmp_path).advice

    def test_a_loss_that_is_not_finite(self, monkeypatch):
        real = sharding.jit_train_step

        def broken(mesh):
            def step(state, batch):
                state, measured = real(mesh)(state, batch)
                return state, measured | {"loss": measured["loss"] * float("nan")}

            return step

        monkeypatch.setattr(sharding, "jit_train_step", broken)
        found = doctor_jax.training()
        assert found.status == "problem" and "loss nan" in found.text and "JAX_PLATFORMS=cpu" in found.advice

    def test_a_disk_that_forgets(self, monkeypatch, tmp_path):
        real = Checkpoints.restore

        def other(self, state, mesh):
            back, step = real(self, state, mesh)
            return back.replace(params=jax.tree.map(lambda leaf: np.asarray(leaf) + 1, back.params)), step

        monkeypatch.setattr(Checkpoints, "restore", other)
        found = doctor_jax.checkpoint(tmp_path)
        assert found.status == "problem" and "not the same" in found.text and not list(tmp_path.iterdir())


class TestData:
    def test_whole_beside_kept_heatmaps_and_a_leftover(self, data):
        folder, version = data
        (version.parent / "heatmaps" / "ab_v1").mkdir(parents=True)
        (version.parent / "incomplete.XYZ_1.3.0").mkdir()
        (folder / "downloads" / "S1" / "Videos").mkdir(parents=True)
        (folder / "lsp" / "all" / ".unfinished-1.0.0-ab").mkdir(parents=True)
        found = doctor_data.prepared_data(folder)
        assert [f.status for f in found] == ["warning", "ok", "warning"]
        assert ".unfinished-1.0.0-ab" in found[0].text and "fusion-jax prepare lsp" in found[0].advice
        assert "incomplete.XYZ_1.3.0" in found[2].text and "heatmaps" not in found[2].text

    def test_a_folder_without_its_record_is_unfinished(self, data):
        (data[1] / "dataset_info.json").unlink()
        (found,) = doctor_data.prepared_data(data[0])
        assert found.status == "warning" and "1.3.0, unfinished" in found.text

    @pytest.mark.parametrize("harm", ["shard missing", "shard cut", "another count", "no metadata", "cut record"])
    def test_damage_is_named(self, data, harm):
        folder, version = data
        shard = next(version.glob("*test.array_record*"))
        info = version / "dataset_info.json"
        if harm == "shard missing":
            shard.unlink()
        elif harm == "shard cut":
            shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
        elif harm == "another count":
            info.write_text(info.read_text().replace('"56"', '"57"'))
        elif harm == "no metadata":
            (version / "metadata.json").unlink()
        else:
            info.write_text(info.read_text()[:-30])
        (found,) = run_check("data", lambda: doctor_data.prepared_data(folder))
        assert found.status == "problem" and str(version) in found.text and "prepare" in found.text + found.advice

    @pytest.mark.parametrize("place", [".", "synthetic_humans", "{config}", "{config}/1.3.0/metadata.json"])
    def test_what_cannot_be_read_is_to_be_mended_and_not_to_be_deleted(self, data, monkeypatch, place):
        folder, version = data
        closed = folder / place.format(config=f"synthetic_humans/{version.parent.name}")
        if closed.is_file():
            closed.write_text("{")
        withhold(monkeypatch, closed, "Permission denied")
        (found,) = doctor_data.prepared_data(folder)
        assert found.status == "problem" and f"{closed} cannot be read (Permission denied)" in found.text
        assert "delete" not in found.text + found.advice

    def test_a_disks_own_folder_is_passed_over(self, data, monkeypatch):
        (data[0] / "lost+found").mkdir()
        withhold(monkeypatch, data[0] / "lost+found", "Permission denied")
        assert [f.status for f in doctor_data.prepared_data(data[0])] == ["ok"]

    def test_a_partial_one_is_told(self, data):
        path = data[1] / "metadata.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"faults": ["S1/a.mp4: missing"]}))
        (found,) = doctor_data.prepared_data(data[0])
        assert found.status == "warning" and "S1/a.mp4: missing" in found.text


class TestHost:
    def test_versions_too_old_missing_and_not_the_tested_ones(self, tmp_path):
        (tmp_path / "pyproject.toml").write_text(
            '[project]\ndependencies = ["numpy>=999.1", "jax>=0.4", "no-such-thing>=2"]\n'
        )
        (tmp_path / "requirements.txt").write_text("numpy==0.1\njax==0.2\nunasked==3\n")
        found = doctor_host.versions(tmp_path)
        assert found.status == "problem" and "no-such-thing is missing" in found.text and "jax is" not in found.text
        assert found.advice == "pip install --upgrade 'numpy>=999.1' 'no-such-thing>=2'"
        found = doctor_host.tested_versions(tmp_path)
        assert found.status == "warning" and "(tested 0.1)" in found.text and "unasked" not in found.text
        assert doctor_host.tested_versions(tmp_path / "none") == []
        assert doctor_host.versions().status == "ok" and "opencv" in doctor_host.versions().text
        assert doctor_host.install("cuda", tmp_path / "none") == "pip install 'fusion-jax[cuda]'"

    def test_memory_and_disks(self, tmp_path, monkeypatch):
        assert doctor_host.disk("work", pathlib.Path("/dev/null/run")).status == "problem"
        assert doctor_host.disk("data", pathlib.Path("/dev/null/data")).status == "warning"
        for free, disk, ram in ((10**12, "ok", "ok"), (10**9, "warning", "warning"), (10**8, "problem", "warning")):
            memory = doctor_host.host_memory.Memory(10**12, free)
            with monkeypatch.context() as patch:
                patch.setattr(doctor_host.host_memory, "disk", lambda folder, memory=memory: memory)
                patch.setattr(doctor_host.host_memory, "ram", lambda memory=memory: memory)
                assert (doctor_host.disk("work", tmp_path).status, doctor_host.memory().status) == (disk, ram)
                assert doctor_host.shared_memory(tmp_path).status == ("warning" if free < 512 * 2**20 else "ok")
        missing = doctor_host.shared_memory(tmp_path / "none")
        assert missing.status == "warning" and "--shm-size" in missing.advice

    def test_the_compile_cache(self, tmp_path, monkeypatch):
        (tmp_path / "jit_f-0-cache").write_bytes(bytes(2_000_000))
        found = doctor_host.compile_cache(tmp_path)
        assert found.status == "ok" and "1 programs, 2 MB" in found.text
        found = doctor_host.compile_cache(pathlib.Path("/dev/null/cache"))
        assert found.status == "warning" and "XDG_CACHE_HOME" in found.advice
        monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
        assert "turned off" in doctor_host.compile_cache().text


def test_an_exception_in_a_check_is_a_finding(monkeypatch):
    (found,) = run_check("odd", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert found == Finding(
        "odd", "problem", "this check failed: ZeroDivisionError: integer division or modulo by zero", found.advice
    )
    monkeypatch.setattr(doctor, "apart", lambda names, examined: iter([]))
    monkeypatch.setattr(doctor_host, "memory", lambda: 1 // 0)
    found = list(doctor.diagnose(Examined()))
    assert statuses(found)["memory"] == "problem" and len(found) == 8


def test_the_report_in_words():
    good, odd, bad = (
        Finding(s, s, "text", advice) for s, advice in (("ok", ""), ("warning", "look"), ("problem", "do"))
    )
    assert report_line(bad).splitlines() == ["problem  problem          text", f"{'':26}-> do"]
    assert summary([good]) == "nothing to mend" and summary([good, odd]) == "nothing to mend; look at warning"
    assert summary([odd, bad]) == "1 to mend: problem"


def test_options_that_go_together(capsys):
    assert main(["doctor", "--dataset", "lsp"]) == 2 and "go together" in capsys.readouterr().err
