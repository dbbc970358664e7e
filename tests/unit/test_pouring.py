"""Bytes poured into a basin land where they belong, whatever the cuts."""

from hypothesis import given
from hypothesis import strategies as st

from importer.sources.protocol import fill


class Cups:
    """A basin of places of one size each."""

    def __init__(self, length: int, size: int) -> None:
        self.memory = bytearray(length)
        self.told: list[tuple[int, int]] = []
        self._size = size

    def place(self, at: int) -> memoryview:
        return memoryview(self.memory)[at : at - at % self._size + self._size]

    def filled(self, at: int, count: int) -> None:
        self.told.append((at, count))


@given(st.binary(min_size=1, max_size=200), st.integers(1, 50), st.data())
def test_chunks_are_copied_across_places(data: bytes, size: int, draw: st.DataObject) -> None:
    cups, at = Cups(len(data), size), 0
    while at < len(data):
        chunk = data[at : at + draw.draw(st.integers(1, 70))]
        fill(cups, at, chunk)
        at += len(chunk)
    assert cups.memory == data
    ends = [at + count for at, count in cups.told]
    assert [at for at, _ in cups.told] == [0, *ends[:-1]]
    assert ends[-1] == len(data)
