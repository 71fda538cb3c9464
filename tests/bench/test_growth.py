"""The benchmark of fleet sizes, with few candidates and few rounds."""

import pytest

from bench.growth import measure


@pytest.mark.slow
def test_each_size_has_a_row_with_the_scripts_after_a_release() -> None:
    """A single candidate hands nothing over. In a larger fleet, calls of the other candidates follow each release."""
    found = measure(sizes=(1, 2, 6), steady=3.0, rounds=4)
    steady, releases = found.tables
    assert [row[0] for row in steady.rows] == ["1", "2", "6"]
    assert [row[0] for row in releases.rows] == ["2", "6"]
    assert releases.rows[0][1] == "1.0"
    columns = {name: [row[at] for row in releases.rows] for at, name in enumerate(releases.header)}
    assert all(float(each) > 0 for each in columns["median, ms"] + columns["limit, ms"])
    assert all(int(each) > 0 for each in columns["scripts"])
    assert "100,000 tasks, estimated" in found.text
