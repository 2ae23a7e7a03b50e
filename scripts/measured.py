"A table that commands fill row by row, so that an interrupted one goes on where it stood."
from __future__ import annotations
import csv
from pathlib import Path
from typing import Any, Sequence

def rows_of(table: Path) -> list[dict[str, str]]:
    "The rows that were measured."
    if not table.exists(): return []
    with table.open(newline='', encoding='utf-8') as f: return list(csv.DictReader(f))

def add_row(table: Path, columns: Sequence[str], row: Sequence[Any]) -> None:
    "One more row, under a heading if it is the first."
    with table.open('a', newline='', encoding='utf-8') as f:
        if not f.tell(): csv.writer(f).writerow(columns)
        csv.writer(f).writerow(row)
