"""The report's part on a benchmark's own protocol: its tables, published numbers under ours, and its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusion_jax.errors import UserError
from fusion_jax.report_page import Section, definitions, paragraph, subtitle, table
from fusion_jax.run_record import RunRecord


def benchmark_sections(run: RunRecord) -> list[Section]:
    """One section for every evaluation that was scored by a protocol of `protocols.PROTOCOLS`."""
    return [
        _checked_section(run, evaluation.split, evaluation.scores["benchmark"])
        for evaluation in run.evaluations
        if isinstance(evaluation.scores.get("benchmark"), Mapping)
    ]


def _checked_section(run: RunRecord, split: str, benchmark: Mapping[str, Any]) -> Section:
    try:
        return _section(split, benchmark)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        path = run.workdir / "eval" / f"{split}.json"
        raise UserError(
            f"{path}: benchmark is not as evaluating writes it ({type(error).__name__}: {str(error)[:80]}); "
            f"run `fusion-jax evaluate --workdir {run.workdir}` again"
        ) from error


def _section(split: str, benchmark: Mapping[str, Any]) -> Section:
    words = benchmark["protocol"]
    parts = [
        paragraph(
            f"Scored as {words['dataset']} is usually scored, so that the numbers stand beside published ones. "
            "Those are in lines of their own, with what is known of how they were measured."
        )
    ]
    parts += [paragraph(f"Beware: {text}.", "note") for text in [*benchmark["differs"], *benchmark["warnings"]]]
    sources: dict[str, str] = {}
    for entry in benchmark["tables"]:
        columns = entry["columns"]
        rows = []
        for row in entry["rows"]:
            name = f"{row['name']} ({row['note']})" if row["note"] else row["name"]
            scores = [_score(row["values"][column]) for column in columns]
            rows.append([name, str(row["num_frames"]), *scores])
            for record in row["published"]:
                sources[record["name"]] = f"{record['source']}; {record['note']}"
                rows.append([f"- {record['name']}", "", *(str(record["values"].get(c, "")) for c in columns)])
        parts += [subtitle(entry["title"]), table(["", "frames", *columns], rows, numeric=range(1, 2 + len(columns)))]
        parts += [paragraph(note, "note") for note in entry["notes"]]
    parts.append(definitions([(key, str(value)) for key, value in words.items()]))
    if sources:
        parts += [subtitle("Where the published numbers come from"), definitions(list(sources.items()))]
    return Section(f"{words['dataset']} on {split}", f"benchmark-{split}", parts, {})


def _score(value: float | None) -> str:
    """mm or percent, as `tables.format_score` has them; that module needs jax, and the report does without."""
    return "n/a" if value is None else f"{value:.1f}"
