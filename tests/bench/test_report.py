"""Reports of benchmarks: spreads, tables, JSON, and the document."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench import docs
from bench.report import Plot, Report, Spread, Table, run

REPORT = Report(
    name="handover",
    title="Hand-over",
    command="make bench",
    text="Two clients hand a lease over.",
    tables=(Table(("lock", "median, ms"), (("ours", "1.70"), ("another", "12.00")), "Less is better."),),
    plots=(Plot("handover", "Hand-over", "ms", "share", {"ours": [(0, 1.7), (1, 1.8)]}, "distribution"),),
    versions={"Redis": "7.0"},
)


def test_the_99th_percentile_is_the_nearest_rank() -> None:
    """The 198th of 200 samples is the 99th percentile."""
    assert Spread.of([float(sample) for sample in range(200, 0, -1)]) == Spread(100.5, 198.0, 200.0, 200)
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0, 1)


def test_a_table_aligns_numbers_to_the_right() -> None:
    """The first column, which contains names, is aligned to the left."""
    assert REPORT.tables[0].text().splitlines() == [
        "lock     median, ms",
        "ours           1.70",
        "another       12.00",
    ]


def test_a_report_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file contains the report as printed, and also the machine and the time."""
    file = tmp_path / "new" / "handover.json"
    run(lambda: REPORT, ["--json", str(file)])
    written = Report.from_json(file.read_text())
    assert written.tables == REPORT.tables
    assert "Python" in written.machine
    assert written.at
    assert capsys.readouterr().out.strip() == written.terminal()


def test_the_document_has_tables_and_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report replaces the comment that names it. The same reports always give the same files."""
    monkeypatch.chdir(tmp_path)
    for folder in ("bench", "docs", "build/bench"):
        (tmp_path / folder).mkdir(parents=True)
    docs.TEMPLATE.write_text("# Benchmarks\n\n<!-- report: handover -->\n")
    (docs.RESULTS / "handover.json").write_text(REPORT.to_json())
    docs.main()
    text, picture = docs.DOCUMENT.read_text(), (docs.PICTURES / "handover.svg").read_bytes()
    assert "| another | 12.00 |" in text
    assert "![Hand-over](benchmarks/handover.svg)" in text
    docs.main()
    assert docs.DOCUMENT.read_text() == text
    assert (docs.PICTURES / "handover.svg").read_bytes() == picture


def test_a_benchmark_that_was_not_run_again_keeps_its_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other sections and the text are written again."""
    monkeypatch.chdir(tmp_path)
    for folder in ("bench", "docs", "build/bench"):
        (tmp_path / folder).mkdir(parents=True)
    docs.TEMPLATE.write_text("<!-- report: handover -->\n\nOld.\n\n<!-- report: legs -->\n")
    (docs.RESULTS / "handover.json").write_text(REPORT.to_json())
    (docs.RESULTS / "legs.json").write_text(replace(REPORT, name="legs", title="Legs").to_json())
    docs.main()
    (docs.RESULTS / "handover.json").unlink()
    (docs.RESULTS / "legs.json").write_text(replace(REPORT, name="legs", title="New legs").to_json())
    docs.TEMPLATE.write_text("<!-- report: handover -->\n\nNew.\n\n<!-- report: legs -->\n")
    capsys.readouterr()
    docs.main()
    text = docs.DOCUMENT.read_text()
    assert [line for line in text.splitlines() if line.startswith(("## ", "New", "Old"))] == [
        "## Hand-over",
        "New.",
        "## New legs",
    ]
    assert "handover.json does not exist, so the document keeps its section" in capsys.readouterr().out


def test_a_missing_report_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the file and the command that writes it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench").mkdir()
    docs.TEMPLATE.write_text("<!-- report: handover -->\n")
    with pytest.raises(SystemExit) as ended:
        docs.main()
    assert ended.value.code == 2
    assert "python -m bench.handover --json build/bench/handover.json" in capsys.readouterr().err
