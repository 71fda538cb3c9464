"""The benchmark of more candidates, with a few candidates and a few rounds."""

from bench.growth import measure


def test_each_size_has_a_row_and_the_herd_is_counted() -> None:
    """One candidate hands over to nobody; with more each release is followed by calls of the others."""
    found = measure(sizes=(1, 2, 6), steady=0.5, rounds=4)
    steady, releases = found.tables
    assert [row[0] for row in steady.rows] == ["1", "2", "6"]
    assert [row[0] for row in releases.rows] == ["2", "6"]
    assert releases.rows[0][1] == "1.0"
    columns = {name: [row[at] for row in releases.rows] for at, name in enumerate(releases.header)}
    assert all(float(each) > 0 for each in columns["median, ms"] + columns["limit, ms"])
    assert all(int(each) > 0 for each in columns["scripts"])
    assert "100,000 tasks, on paper" in found.text
