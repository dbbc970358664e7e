"""Runs of data as they may lie in an image, for tests of what follows them."""

from hypothesis import strategies as st

from importer.disk.chart import MOST_RUNS, SECTOR, Chart, Run


@st.composite
def layouts(draw: st.DrawFn, most: int = 30) -> list[Run]:
    """Runs as a qcow2 may have them, ascending: compressed ones are told up to the sector in which they end."""
    runs: list[Run] = []
    at = draw(st.integers(0, 5)) * SECTOR
    for guest in draw(st.permutations(range(draw(st.integers(0, most))))):
        if draw(st.booleans()):
            taken = draw(st.integers(1, 5000))
            runs.append(Run(at, guest << 21, -(-(at + taken) // SECTOR) * SECTOR - at, True))
            at += taken
        else:
            at = -(-at // SECTOR) * SECTOR
            size = draw(st.integers(1, 8)) * SECTOR
            runs.append(Run(at, guest << 21, size, False))
            at += size
        at += draw(st.sampled_from([0, 0, 1, 700, 9 * SECTOR]))
    return runs


def noted(runs: list[Run], most: int = MOST_RUNS) -> Chart:
    chart = Chart(most)
    for run in runs:
        (chart.packed if run.packed else chart.plain)(run.guest, run.host, run.size)
    return chart
