"""A protocol's tables for readers: Markdown and CSV, published rows with their sources and the protocol's words."""

from __future__ import annotations

import csv
import io
from typing import Any

from fusion_jax.tables import format_score

Table = dict[str, Any]


def protocol_markdown(result: dict[str, Any]) -> str:
    """The tables as Markdown, each with published rows, their sources and the protocol under it."""
    return "\n".join(_markdown_table(table, result) for table in result["tables"])


def _markdown_table(table: Table, result: dict[str, Any]) -> str:
    columns = table["columns"]
    lines = [f"### {result['protocol']['dataset']}: {table['title']}", ""]
    lines += [f"| | frames | {' | '.join(columns)} |", f"|---|{'---:|' * (1 + len(columns))}"]
    sources: dict[str, str] = {}
    for row in table["rows"]:
        name = f"{row['name']} ({row['note']})" if row["note"] else row["name"]
        scores = [format_score(row["values"][column], column) for column in columns]
        lines.append(f"| {name} | {row['num_frames']} | {' | '.join(scores)} |")
        for record in row["published"]:
            sources[record["name"]] = f"{record['source']}; {record['note']}"
            number = list(sources).index(record["name"]) + 1
            scores = [str(record["values"].get(column, "-")) for column in columns]
            lines.append(f"| *{record['name']}* [{number}] | - | {' | '.join(scores)} |")
    remarks = [*result["differs"], *(f"warning: {warning}" for warning in result["warnings"]), *table["notes"]]
    remarks += [f"[{number}] published, {name}: {source}" for number, (name, source) in enumerate(sources.items(), 1)]
    remarks += [f"{key}: {value}" for key, value in result["protocol"].items()]
    return "\n".join([*lines, "", *(f"- {remark}" for remark in remarks), ""])


def protocol_csv(result: dict[str, Any]) -> str:
    """One line per table, row, column and who scored it ("this run" or a published name), with source and protocol.

    An empty value is n/a.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "row", "by", "num_frames", "column", "value", "source", "protocol"])
    words = [f"{key}: {value}" for key, value in result["protocol"].items()]
    for table in result["tables"]:
        protocol = "; ".join([*result["differs"], *result["warnings"], *table["notes"], *words])
        for row in table["rows"]:
            for column, value in row["values"].items():
                score = "" if value is None else f"{value:.4f}"
                writer.writerow(
                    [table["title"], row["name"], "this run", row["num_frames"], column, score, row["note"], protocol]
                )
            for record in row["published"]:
                source = f"{record['source']}; {record['note']}"
                for column, value in record["values"].items():
                    writer.writerow([table["title"], row["name"], record["name"], "", column, value, source, protocol])
    return out.getvalue()
