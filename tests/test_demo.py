"""The demo from end to end, the chain from photo to pose included, on a small dataset and a step of each training."""

import pytest
import small

from fusion_jax import demo


@pytest.mark.slow
def test_the_demo_and_its_chain(tmp_path, monkeypatch, capsys):
    """Slow because the presets' real networks are compiled."""
    (info,) = (small.data_dir() / "synthetic_humans").glob("*/*/dataset_info.json")
    monkeypatch.setattr(demo, "prepare_synthetic_humans", lambda data_dir: info.parent)
    demo.run_demo(small.data_dir(), tmp_path, steps=1)
    assert "2D network on the test people: PCKh@0.5" in capsys.readouterr().out
    assert (tmp_path / "poses" / "index.html").exists() and (tmp_path / "poses" / "clip.mp4").exists()
    demo.run_demo(small.data_dir(), tmp_path, steps=1, chain=True)
    out = capsys.readouterr().out
    assert f"{tmp_path / 'learned'} is trained and scored already; reusing it" in out
    table = out[out.index("tested on") :].splitlines()
    assert table[0].split()[-3:] == ["true", "noisy", "predicted"]
    rows = [line.split() for line in table[1:4]]
    assert [row[2] for row in rows] == ["true", "noisy", "predicted"]
    assert all(float(number) > 0 for row in rows for number in row[-3:])
    assert (tmp_path / "poses_chain" / "walking.json").exists()
