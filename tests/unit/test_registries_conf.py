"""registries.conf: prefixes, locations, mirrors, as containers-registries.conf(5) has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.sources.reference import in_registry
from importer.sources.registries_conf import places, rules

HEX = "a" * 64


def found(image: str, *texts: str) -> list[str]:
    """Return where an image is looked for; insecure places end in "!"."""
    known = rules((f"{number}.conf", text) for number, text in enumerate(texts))
    return [
        one.reference.shown.removeprefix("docker://") + ("!" if one.insecure else "") for one in places(in_registry(image), known)
    ]


MIRRORED = """
unqualified-search-registries = ["example.com"]
[[registry]]
prefix = "example.com/foo"
location = "internal.net:5000/bar"
[[registry.mirror]]
location = "mirror-0.local/mirror-for-foo"
[[registry.mirror]]
location = "mirror-1.local/mirrors/foo"
insecure = true
[[registry]]
location = "registry.com"
insecure = true
"""


def test_the_example_of_the_manual_page():
    assert found("example.com/foo/image:1", MIRRORED) == [
        "mirror-0.local/mirror-for-foo/image:1",
        "mirror-1.local/mirrors/foo/image:1!",
        "internal.net:5000/bar/image:1",
    ]
    assert found("example.com/foobar/image:1", MIRRORED) == ["example.com/foobar/image:1"]
    assert found("registry.com/a", MIRRORED) == ["registry.com/a:latest!"]
    assert found("registry.com:5000/a", MIRRORED) == [
        "registry.com:5000/a:latest!"
    ]  # the manual: a separator follows, as ":" does
    assert found("other.com/a", MIRRORED) == ["other.com/a:latest"]


def test_the_longest_prefix_wins_down_to_tag_and_digest():
    text = "".join(
        f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location}"\n'
        for prefix, location in {
            "h.x": "all.x", "h.x/a": "a.x/a", "h.x/a/b": "b.x/a/b", "h.x/a/b:1": "tag.x/a/b:1",
            f"h.x/a/b@sha256:{HEX}": f"d.x/c@sha256:{HEX}",
        }.items()
    )  # fmt: skip
    assert found("h.x/z", text) == ["all.x/z:latest"]
    assert found("h.x/a/z", text) == ["a.x/a/z:latest"]
    assert found("h.x/a/b:2", text) == ["b.x/a/b:2"]
    assert found("h.x/a/b:1", text) == ["tag.x/a/b:1"]
    assert found(f"h.x/a/b@sha256:{HEX}", text) == [f"d.x/c@sha256:{HEX}"]


def test_docker_hub_is_matched_by_its_full_names():
    text = '[[registry]]\nprefix = "docker.io/library"\nlocation = "mirror.x/hub"\n'
    assert found("alpine:3", text) == ["mirror.x/hub/alpine:3"]
    assert found("user/alpine:3", text) == ["docker.io/user/alpine:3"]


def test_subdomains_by_a_star():
    text = '[[registry]]\nprefix = "*.example.com"\ninsecure = true\n[[registry.mirror]]\nlocation = "mirror.x/m"\n'
    assert found("a.b.example.com/img", text) == ["mirror.x/m/img:latest", "a.b.example.com/img:latest!"]
    assert found("a.example.com:5000/b/img", text)[0] == "mirror.x/m/b/img:latest"
    assert found("example.com/img", text) == ["example.com/img:latest"]
    assert found("notexample.com/img", text) == ["notexample.com/img:latest"]


def test_mirrors_may_be_for_tags_or_digests_only():
    text = """
[[registry]]
location = "h.x"
[[registry.mirror]]
location = "all.x"
[[registry.mirror]]
location = "digest.x"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "tag.x"
pull-from-mirror = "tag-only"
"""
    assert found("h.x/a:1", text) == ["all.x/a:1", "tag.x/a:1", "h.x/a:1"]
    assert found(f"h.x/a@sha256:{HEX}", text) == [f"{host}.x/a@sha256:{HEX}" for host in ("all", "digest", "h")]
    strict = '[[registry]]\nlocation = "h.x"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "m.x"\n'
    assert found("h.x/a:1", strict) == ["h.x/a:1"]
    assert found(f"h.x/a@sha256:{HEX}", strict) == [f"m.x/a@sha256:{HEX}", f"h.x/a@sha256:{HEX}"]


def test_a_later_file_replaces_the_rule_of_a_prefix():
    assert found("h.x/a", '[[registry]]\nlocation = "h.x"\nblocked = true\n', '[[registry]]\nlocation = "h.x"\n') == [
        "h.x/a:latest"
    ]


def test_what_is_blocked_is_denied_with_the_rule():
    with pytest.raises(Failure) as caught:
        found("h.x/a/b", '[[registry]]\nprefix = "h.x/a"\nlocation = "m.x"\nblocked = true\n')
    assert caught.value.code == "denied"
    assert caught.value.evidence["prefix"] == "h.x/a"


@pytest.mark.parametrize(
    "text",
    [
        "[registries.search]\nregistries = []", "[[registry", "registry = 5", "[[registry]]\n", '[[registry]]\nlocation = "https://h.x"',
        '[[registry]]\nlocation = 5', '[[registry]]\nlocation = "h.x"\ninsecure = "yes"', '[[registry]]\nprefix = "a.*.com"\n',
        '[[registry]]\nprefix = "*.x/foo"', '[[registry]]\nlocation = "h.x"\nmirror = 5',
        '[[registry]]\nlocation = "h.x"\n[[registry.mirror]]\n',
        '[[registry]]\nlocation = "h.x"\n[[registry.mirror]]\nlocation = "m.x"\npull-from-mirror = "never"',
    ],
)  # fmt: skip
def test_files_that_mean_nothing_are_refused_with_their_name(text):
    with pytest.raises(Failure) as caught:
        rules([("some.conf", text)])
    assert caught.value.code == "usage"
    assert caught.value.evidence["file"] == "some.conf"


def test_a_location_that_makes_no_name_is_refused_when_it_is_needed():
    with pytest.raises(Failure) as caught:
        found("h.x/a", '[[registry]]\nprefix = "h.x"\nlocation = "BAD//x"\n')
    assert caught.value.code == "usage"


@given(st.text('[]"=\n#registryprefixlocationmirrorh.x/ ', max_size=80))
def test_any_text_ends_in_rules_or_a_failure(text):
    try:
        rules([("f", text)])
    except Failure as failure:
        code = failure.code
    else:
        code = "usage"
    assert code == "usage"
