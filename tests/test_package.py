"""The package as a whole: light import, import direction, no TensorFlow, the README's snippet."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import fusion_jax

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("fusion_jax", "data_pipelines")

# Who may import whom: a module imports only from its own layer's left-hand side or further down.
LAYERS = (
    {"errors", "toom_cook", "pooling", "compile_cache", "checksums", "fusion_watch", "transfers", "lasting_output"},
    {"host_memory", "finding", "stopping"},
    {"bounded_file", "skeletons", "body_parts", "geometry", "records", "augmentation", "winograd", "workdir_lock"},
    {"distributed", "interrupt"},
    {"fusion", "correlation", "conv", "heatmaps", "heatmap_noise", "alignment"},
    {"pose_record", "picture_input", "people", "place", "smooth", "torch_pickle"},
    {"torch_file", "release_pickle", "pose_npz", "npz_file", "given_boxes"},
    {"mixing", "release_file"},
    {"network", "hourglass", "losses", "metrics", "parts"},
    {"config"},
    {"presets", "optim", "batch"},
    {"state"},
    {"cost"},
    {"prune_bound", "prune"},
    {"inputs", "switched"},
    {"steps"},
    {"heatmap_steps"},
    {"leakage", "published", "protocols"},
    {"sharding", "stored_state", "tables", "heatmap_tables", "progress", "prepare", "prepare_raw"},
    {"datasets", "training_log"},
    {"profiling", "skip_dead", "window"},
    {"run_record"},
    {"analysis_record", "machine", "sweep_result"},
    {"card", "sweep_plan", "sweep_steps", "work_folder"},
    {"checkpoint_place"},
    {"step_folders"},
    {"checkpoint", "protocol_tables", "protocol_text"},
    {"init_hourglass", "import_hourglass", "heatmap_net", "imported_run"},
    {"init_from", "import_release"},
    {"scoring", "heatmap_feed"},
    {"release_protocol"},
    {"prune_text", "heatmap_cache", "stream_usage", "stream_correlation"},
    {"start"},
    {"fed_data"},
    {"pictures", "pose_pictures", "analysis_pictures", "report_page"},
    {
        "report_scores",
        "report_benchmark",
        "report_analysis",
        "report_heatmaps",
        "predict_pictures",
        "predict_page",
        "predict_video",
    },
    {"sweep_stats", "prune_proof"},
    {"sweep_pictures"},
    {"train", "report", "sweep_report", "dry_run"},
    {"evaluate", "evaluate_heatmaps", "prune_run", "analyze", "sweep_group", "replay"},
    {"sweep"},
    {"network_pair"},
    {"predictor"},
    {"predict_stream"},
    {"predict"},
    {"demo_photos"},
    {"demo", "cli_prepare"},
    {"doctor_host", "doctor_data", "doctor_jax"},
    {"doctor"},
    {"cli_processes"},
    {"cli_train", "cli_analyze", "cli_sweep", "cli_predict", "cli_prune", "cli_replay", "cli_doctor"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_import_is_light():
    """No TensorFlow, no jax, so no device; and fast."""
    code = "import sys, fusion_jax; print(sorted({'tensorflow', 'jax', 'flax'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"


def test_using_every_public_name_touches_no_device():
    code = (
        "import sys, fusion_jax\n"
        "for name in fusion_jax.__all__: getattr(fusion_jax, name)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_public_names_are_those_for_type_checkers():
    tree = ast.parse((ROOT / "fusion_jax" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(fusion_jax.__all__) - {"__version__"}
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fusion_jax.no_such_name


def test_imports_point_one_way():
    for path in (ROOT / "fusion_jax").glob("*.py"):
        if path.stem == "__init__":
            continue
        for module in imports(path):
            head, _, name = module.partition(".")
            if head == "fusion_jax" and name in LEVEL:
                assert LEVEL[name] < LEVEL[path.stem] or same_layer(path.stem, name), f"{path.stem} imports {name}"


def same_layer(importer, imported):
    """Within a layer the order of the alphabet decides nothing, but a cycle is still one."""
    if LEVEL[importer] != LEVEL[imported]:
        return False
    return f"fusion_jax.{importer}" not in set(imports(ROOT / "fusion_jax" / f"{imported}.py"))


def test_data_pipelines_need_nothing_of_training():
    allowed = {"errors", "bounded_file", "skeletons", "body_parts", "geometry", "records", "augmentation"}
    for path in (ROOT / "data_pipelines").rglob("*.py"):
        used = {m.split(".")[1] for m in imports(path) if m.startswith("fusion_jax.")}
        assert used <= allowed, f"{path.relative_to(ROOT)} imports {used - allowed}"


def test_tensorflow_is_imported_nowhere():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert not {m for m in imports(path) if m.split(".")[0] == "tensorflow"}, path


def test_the_readmes_snippet_runs(capsys):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(snippets) == 1 and len(snippets[0].strip().splitlines()) <= 12
    exec(compile(snippets[0], "README.md", "exec"), {})
    assert len(capsys.readouterr().out.split()) >= 4, "loss, alpha, beta, weights"


def test_requirements_pin_what_the_project_asks_for():
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "requirements.txt").read_text().split()}
    text = (ROOT / "pyproject.toml").read_text()
    asked = re.findall(r'^    "([A-Za-z0-9-]+)[>\[]', text, re.M) + re.findall(r'"([a-z0-9-]+)>=', text)
    assert {name.lower() for name in asked} - pinned <= {"jax[cuda12]", "imageio", "torch", "setuptools"}
