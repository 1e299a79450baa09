"""The shipped ledger holds every claim, whole, and README and results show it."""

import runpy
from pathlib import Path

import pytest

from minilumiere.evaluation.claims import ledger
from minilumiere.evaluation.claims.ledger import KEYS, read_ledger
from minilumiere.evaluation.claims.verdicts import VERDICTS

ROOT = Path(__file__).parents[3]


def test_every_row_of_the_shipped_ledger_is_whole_and_in_order():
    rows, order = read_ledger(ROOT / "data" / "claims.json"), [claim.row for claim in ledger.LEDGER]
    assert [row["row"] for row in rows] == order
    for row in rows:
        assert all(row[key] for key in KEYS), row["row"]
        assert row["verdict"] in VERDICTS and isinstance(row["n"], int) and row["command"].startswith("minilumiere claims")


def test_the_tables_of_readme_and_results_are_the_ledger():
    tables, rows = runpy.run_path(str(ROOT / "docs" / "claims.py")), read_ledger(ROOT / "data" / "claims.json")
    for page, table in (("README.md", ledger.short_table(rows)), ("docs/results.md", ledger.long_table(rows))):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert tables["with_table"](text, table) == text, f"{page} is not up to date: python docs/claims.py"
    with pytest.raises(ValueError, match="no mark"):
        tables["with_table"]("a page", "table")
