"""The ledger is resumed where it was killed, keeps what it cannot measure, takes nothing broken."""

import json
from pathlib import Path

import pytest

from minilumiere.cli import main
from minilumiere.evaluation.claims import ledger
from minilumiere.evaluation.claims.ledger import KEYS, Claim, chosen, measure_claims, read_ledger
from minilumiere.evaluation.claims.verdicts import VERDICTS


@pytest.fixture
def fakes(monkeypatch):
    """Three claims that are measured at once, the last from trainings, and a log of what was measured."""
    asked: list[str] = []

    def claim(row: str, trained: bool = False) -> Claim:
        def measure(folder: Path, progress: bool) -> dict:
            asked.append(row)
            if trained and not (folder / "there").is_file():
                raise FileNotFoundError("no training")
            made = dict.fromkeys(KEYS, f"{row} of {asked.count(row)}")
            return made | {"n": 3, "verdict": VERDICTS[0], "settings": {}}

        return Claim(row, f"claim {row}", measure, 1, trained)

    monkeypatch.setattr(ledger, "LEDGER", (claim("1"), claim("2"), claim("3", trained=True)))
    monkeypatch.setattr(ledger.metrics, "laboratory", lambda progress: asked.append("metrics") or {"a": 1})
    return asked


def test_all_is_measured_in_order_and_the_laboratory_last(fakes, tmp_path):
    (tmp_path / "there").touch()
    lines = list(measure_claims(None, tmp_path / "claims.json", tmp_path, False))
    assert fakes == ["1", "2", "3", "metrics"]
    assert [row["row"] for row in read_ledger(tmp_path / "claims.json")] == ["1", "2", "3"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"a": 1}
    assert lines[0].split() == ["claim", "minutes", "about"] and "claim 2" in lines[2] and "holds" in lines[-2]


def test_killed_half_way_it_goes_on_and_once_done_it_begins_anew(fakes, tmp_path):
    path, (first, _, third) = tmp_path / "claims.json", ledger.LEDGER

    def killed(folder, progress):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "LEDGER", (first, Claim("2", "killed", killed, 1), third))
        with pytest.raises(KeyboardInterrupt):
            list(measure_claims(None, path, tmp_path, False))
    assert [row["row"] for row in read_ledger(path)] == ["1"], "what was measured is there"
    (tmp_path / "there").touch()
    plan = list(measure_claims(None, path, tmp_path, False))[:4]
    assert fakes == ["1", "2", "3", "metrics"] and "done" in plan[1] and "done" not in plan[2]
    list(measure_claims(["1"], path, tmp_path, False))
    assert fakes[4:] == ["1"]
    assert [row["claim"] for row in read_ledger(path)] == ["1 of 2", "2 of 1", "3 of 1"]


def test_a_row_without_its_trainings_stays_as_it_was(fakes, tmp_path):
    path = tmp_path / "claims.json"
    assert "no row yet" in list(measure_claims(["3"], path, tmp_path, False))[-1] and not path.exists()
    (tmp_path / "there").touch()
    list(measure_claims(["3"], path, tmp_path, False))
    (tmp_path / "there").unlink()
    kept = read_ledger(path)
    assert "stays as it was" in list(measure_claims(["3"], path, tmp_path, False))[-1]
    assert read_ledger(path) == kept


@pytest.mark.parametrize("text", ["no JSON", '[{"row": "1"}]', "[1]", json.dumps([dict.fromkeys(("row", *KEYS), "maybe")])])
def test_a_broken_ledger_is_refused_before_anything_is_measured(fakes, tmp_path, text):
    path = tmp_path / "claims.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no ledger of claims"):
        list(measure_claims(None, path, tmp_path, False))
    assert fakes == [] and path.read_text() == text


def test_rows_are_asked_for_by_name():
    assert [claim.row for claim in chosen(["4b", "3"])[0]] == ["3", "4b"] and not chosen(["3"])[1]
    assert chosen(["metrics"]) == ([], True) and len(chosen(None)[0]) == len(ledger.LEDGER)
    with pytest.raises(ValueError, match=r"no claim '99'.*4b"):
        chosen(["99"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--only", "99"], "no claim '99'"), (["--output", ""], "output is empty"), (["--folder", "/dev/null/x"], "/dev/null/x")],
)
def test_bad_input_is_one_clear_line(capsys, arguments, says):
    assert main(["claims", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_few_steps_do_not_reach_the_ledger(capsys, monkeypatch, fakes, tmp_path):
    monkeypatch.setenv("MINILUMIERE_SMOKE", "1")
    assert main(["claims", "--only", "1"]) == 2 and "--output" in capsys.readouterr().err
    output = tmp_path / "claims.json"
    assert main(["claims", "--only", "1", "--output", str(output), "--folder", str(tmp_path)]) == 0
    assert [row["row"] for row in read_ledger(output)] == ["1"] and "1: holds" in capsys.readouterr().out
