"""Which members of an archive may be made: every refusal, and no chain of links that gets out."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk.members import DEEPEST, SLACK, SLACK_OF_MEMBER, Limits, link_text, parts_of
from machinery.values.tar import Kind, Member


def member(name: str, kind: Kind = Kind.FILE, *, link: str = "", size: int = 0, mode: int = 0o644) -> Member:
    return Member(name=name, kind=kind, size=size, offset=512, link=link, mode=mode)


def refusal(one: Member, **limits: int) -> str:
    with pytest.raises(Failure) as caught:
        Limits(1 << 20, **limits).place(one)
    assert caught.value.exit == 65
    return caught.value.code


@pytest.mark.parametrize("name", ["/etc/passwd", "//x", "../x", "a/../x", "a/..", "..", "a\0b", "x" * 256, "a/" * (DEEPEST + 1)])
def test_a_path_that_leads_elsewhere_is_refused(name: str) -> None:
    assert refusal(member(name)) == "unsafe"


@pytest.mark.parametrize("kind", [Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE, Kind.FIFO])
def test_a_device_is_refused(kind: Kind) -> None:
    assert refusal(member("x", kind)) == "unsafe"


@pytest.mark.parametrize("kind", [Kind.SPARSE, Kind.OTHER])
def test_what_is_not_read_is_refused_by_name(kind: Kind) -> None:
    assert refusal(member("x", kind)) == "unsupported"


@pytest.mark.parametrize("link", ["/etc", "..", "../../x", "a/../b", "./../../x", "a/../../b", "", "a\0b"])
def test_a_symbolic_link_that_may_lead_out_is_refused(link: str) -> None:
    assert refusal(member("d/x" if link != ".." else "x", Kind.SYMBOLIC_LINK, link=link)) == "unsafe"


@pytest.mark.parametrize("link", ["", "/a", "../a", "."])
def test_a_hard_link_to_outside_is_refused(link: str) -> None:
    assert refusal(member("x", Kind.HARD_LINK, link=link)) == "unsafe"


def test_counts_and_sizes_are_limited() -> None:
    limits = Limits(10, most_members=2)
    limits.place(member("a", size=10))
    assert refusal(member("a", size=(1 << 20) + 1)) == "too-large"
    with pytest.raises(Failure, match="larger than the limit"):
        limits.place(member("b", size=1))
    with pytest.raises(Failure, match="more members"):
        limits.place(member("c"))


def test_a_stream_without_files_is_no_archive_for_ever() -> None:
    limits = Limits(1 << 40)
    limits.place(member("a", size=1000))
    limits.came(1000 + SLACK + SLACK_OF_MEMBER)
    with pytest.raises(Failure) as caught:
        limits.came(1001 + SLACK + SLACK_OF_MEMBER)
    assert caught.value.code == "bomb"


def test_special_bits_are_dropped_and_the_target_itself_is_left_alone() -> None:
    placed = Limits(10).place(member("./a", mode=0o7751))
    assert placed is not None
    assert (placed.mode, placed.parts) == (0o751, ("a",))
    assert Limits(10).place(member("./", Kind.DIRECTORY)) is None
    assert refusal(member("./")) == "unsafe"


def test_honest_links_are_kept_as_they_are() -> None:
    assert link_text(member("a/b/c", Kind.SYMBOLIC_LINK, link=".././../x/./y"), ("a", "b", "c")) == ".././../x/./y"


@given(st.text(st.sampled_from("ab./\0é"), max_size=12))
def test_parts_are_names_only(name: str) -> None:
    try:
        parts = parts_of(name)
    except Failure:
        assert name.startswith("/") or ".." in name.split("/") or "\0" in name
        return
    assert not {"", ".", ".."} & set(parts)
    assert all("/" not in part and "\0" not in part for part in parts)


_PARTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple)
_LINKS = st.dictionaries(
    _PARTS, st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=5).map("/".join), max_size=6
)


@given(_LINKS, st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4))
def test_no_chain_of_accepted_links_leads_out(wanted: dict[tuple[str, ...], str], way: list[str]) -> None:
    links = dict[tuple[str, ...], str]()
    for place, text in wanted.items():
        below_a_link = any(place[:count] in wanted for count in range(1, len(place)))  # extraction refuses those
        if not below_a_link:
            with suppress(Failure):
                links[place] = link_text(member("/".join(place), Kind.SYMBOLIC_LINK, link=text), place)
    here, left, hops = list[str](), list(way), 0
    while left and hops < 40:
        step = left.pop(0)
        if step == "..":
            assert here, f"{links} leads out along {way}"
            here.pop()
        elif step not in ("", "."):
            here.append(step)
            if (text := links.get(tuple(here))) is not None:
                here.pop()
                hops += 1
                left = text.split("/") + left
