"""Write the tables of claims in README.md and docs/results.md anew, from data/claims.json: python docs/claims.py"""

import re
from pathlib import Path

from minilumiere.evaluation.claims.ledger import long_table, read_ledger, short_table

ROOT = Path(__file__).parents[1]
MARK = "<!-- claims: written by docs/claims.py -->"


def with_table(text: str, table: str) -> str:
    """A page with the table below its mark, in the place of the one there. Raises `ValueError` for a page without the mark."""
    if MARK not in text:
        raise ValueError(f"there is no mark {MARK}")
    before, after = text.split(MARK, 1)
    return f"{before}{MARK}\n{table}\n" + re.sub(r"\n(\|.*\n)*", "", after, count=1)


if __name__ == "__main__":
    rows = read_ledger(ROOT / "data" / "claims.json")
    for page, table in ((ROOT / "README.md", short_table(rows)), (ROOT / "docs" / "results.md", long_table(rows))):
        page.write_text(with_table(page.read_text(encoding="utf-8"), table), encoding="utf-8")
