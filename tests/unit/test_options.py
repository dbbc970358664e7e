"""The command line: what it means, what it refuses, and that no secret passes through it."""

import argparse
from pathlib import Path

import pytest

from importer import options
from importer.api.failure import Failure
from importer.api.request import Checksum, ImportRequest, RegistryAccess
from slipstream.__main__ import main, parser

URL = "https://images.example/debian.qcow2"
SHA256 = "ab" * 32


def asked(*argv: str) -> ImportRequest:
    return options.request_of(parser().parse_args(options.spelled_out(argv)))


def importing(*argv: str) -> ImportRequest:
    return asked("import", URL, "disk.img", *argv)


def refused(*argv: str) -> Failure:
    with pytest.raises(Failure) as caught:
        asked(*argv)
    return caught.value


def test_no_options_mean_the_defaults_of_the_request():
    assert importing() == ImportRequest(source=URL, target="disk.img")


def test_every_option_reaches_the_request():
    request = importing(
        *("--format", "vhd", "--size", "20Gi", "--max-size", "2T", "--checksum", f"SHA256:{SHA256.upper()}"),
        *("--checksum-url", "https://images.example/SHA256SUMS", "--digest", "md5", "--connections", "7"),
        *("--header", "X-A: 1", "--header", "X-B:2", "--proxy", "http://proxy:3128", "--allow-address", "10.0.0.0/8"),
        *(
            "--preallocate",
            "--decoder-memory",
            "64Mi",
            "--scratch-dir",
            "/var/tmp",
            "--reserve",
            "0",
            "--force",
            "--ca-file",
            "ca.pem",
        ),
    )
    assert (request.format, request.size, request.max_size) == ("vhd", 20 << 30, 2 * 10**12)
    assert request.checksum == Checksum(algorithm="sha256", hex=SHA256)
    assert (request.checksum_url, request.digest) == ("https://images.example/SHA256SUMS", "md5")
    assert (request.decoder_memory, request.scratch_dir, request.reserve) == (64 << 20, "/var/tmp", 0)
    assert request.force
    assert request.preallocate == "falloc"
    assert request.access.headers == (("X-A", "1"), ("X-B", "2"))
    assert (request.access.connections, request.access.proxy, request.access.ca_file) == (7, "http://proxy:3128", "ca.pem")
    assert request.access.allow_addresses == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("argv", "digest"),
    [
        (["--digest", URL, "t"], "sha256"),
        ([URL, "t", "--digest"], "sha256"),
        (["--digest", "sha512", URL, "t"], "sha512"),
        (["--digest=sha1", URL, "t"], "sha1"),
        (["--digest", "--", URL, "t"], "sha256"),
        ([URL, "t"], None),
    ],
)
def test_a_bare_digest_does_not_swallow_the_source(argv, digest):
    request = asked("import", *argv)
    assert (request.source, request.target, request.digest) == (URL, "t", digest)


@pytest.mark.parametrize(
    "argv",
    [
        ["--size", "much"],
        ["--size", "0"],
        ["--connections", "0"],
        ["--connections", "33"],
        ["--format", "ntfs"],
        ["--digest=crc32"],
        ["--checksum", SHA256],
        ["--checksum", f"sha256:{SHA256[1:]}"],
        ["--checksum", "sha256:" + "xy" * 32],
        ["--header", "no colon"],
        ["--insecure", "--ca-file", "ca.pem"],
        ["--json", "--receipt", "-"],
        ["--no-such-option"],
        ["--quie"],
        ["third"],
    ],
)
def test_what_makes_no_sense_is_a_usage_failure(argv):
    failure = refused("import", URL, "disk.img", *argv)
    assert (failure.code, failure.exit) == ("usage", 64)


def test_import_without_arguments_and_unknown_commands_are_usage_failures():
    for argv in ([], ["import"], ["import", URL], ["inspect"], ["export", "x"], ["import", "", "t"], ["import", URL, ""]):
        assert refused(*argv).code == "usage"


@pytest.mark.parametrize("name", ["Authorization", "cookie", "PROXY-AUTHORIZATION"])
def test_a_secret_header_in_argv_is_refused_and_not_repeated(name):
    failure = refused("import", URL, "t", "--header", f"{name}: hunter2")
    assert failure.code == "secret-in-argv"
    assert "hunter2" not in failure.render()


@pytest.mark.parametrize(
    "argv",
    [
        ["import", "https://me:hunter2@images.example/x", "t"],
        ["inspect", "HTTPS://me:hunter2@images.example/x"],
        ["import", URL, "t", "--checksum-url", "https://me:hunter2@images.example/x"],
        ["import", URL, "t", "--proxy", "http://me:hunter2@proxy"],
        ["import", URL, "t", "--proxy", "me:hunter2@proxy:3128"],
    ],
)
def test_user_information_in_a_url_is_refused_and_not_repeated(argv):
    failure = refused(*argv)
    assert failure.code == "secret-in-argv"
    assert "hunter2" not in failure.render()


def test_errors_of_argparse_repeat_no_user_information_and_no_query():
    failure = refused("import", URL, "t", "https://me:hunter2@images.example/x?signature=hunter3")
    assert failure.code == "usage"
    assert "hunter" not in failure.render()


def test_a_source_may_stand_in_a_file(tmp_path: Path):
    file = tmp_path / "url"
    file.write_text(f"# presigned, an hour\n\n  {URL}?X-Signature=abc \n")
    assert asked("import", f"@{file}", "t").source == f"{URL}?X-Signature=abc"
    assert asked("import", "./@odd-name", "t").source == "./@odd-name"


@pytest.mark.parametrize("text", ["", "# nothing\n", f"{URL}\n{URL}\n", "https://me:hunter2@images.example/\n", "\udcff"])
def test_a_file_that_does_not_hold_one_plain_url_is_refused(tmp_path: Path, text: str):
    file = tmp_path / "url"
    file.write_text(text, errors="surrogateescape")
    failure = refused("import", f"@{file}", "t")
    assert failure.code == "usage"
    assert "hunter2" not in failure.render()


def test_a_missing_or_endless_file_is_refused(tmp_path: Path):
    assert refused("import", f"@{tmp_path}/missing", "t").code == "usage"
    assert refused("import", f"@{tmp_path}", "t").code == "usage"
    assert refused("import", "@/dev/zero", "t").code == "usage"
    assert refused("import", "@nul\0byte", "t").code == "usage"


def test_headers_of_a_file_may_be_secret(tmp_path: Path):
    file = tmp_path / "headers"
    file.write_text("# for the mirror\nCookie: a=b\nX-Token:  t:1 \n\n")
    assert importing("--header-file", str(file)).access.headers == (("Cookie", "a=b"), ("X-Token", "t:1"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("me:secret\n", "Basic bWU6c2VjcmV0"),
        ("Bearer abc.def\nignored\n", "Bearer abc.def"),
        ("bearer abc", "Bearer abc"),
        ("me:pass word:with:colons", "Basic bWU6cGFzcyB3b3JkOndpdGg6Y29sb25z"),
    ],
)
def test_an_auth_file_holds_a_password_or_a_token(tmp_path: Path, text: str, value: str):
    file = tmp_path / "auth"
    file.write_text(text)
    request = importing("--auth-file", str(file))
    assert request.access.headers == (("Authorization", value),)
    assert value not in repr(request)


@pytest.mark.parametrize("text", ["", "just-a-token\n", "Bearer \n"])
def test_an_auth_file_of_another_form_is_refused_without_its_content(tmp_path: Path, text: str):
    file = tmp_path / "auth"
    file.write_text(text)
    failure = refused("import", URL, "t", "--auth-file", str(file))
    assert failure.code == "usage"
    assert "just-a-token" not in failure.render()


def test_one_header_given_twice_is_refused(tmp_path: Path):
    file = tmp_path / "both"
    file.write_text("authorization: a:b\n")
    assert "twice" in refused("import", URL, "t", "--auth-file", str(file), "--header-file", str(file)).cause


def test_inspect_takes_what_an_import_would_be_judged_by():
    request = asked("inspect", URL, "--for", "/srv", "--preallocate", "--max-size", "1Gi", "--reserve", "1M")
    assert (request.target, request.preallocate, request.max_size, request.reserve) == ("/srv", "falloc", 1 << 30, 10**6)


def test_a_file_of_docker_is_for_container_images_and_stays_a_file(tmp_path: Path):
    file = tmp_path / "config.json"
    file.write_text('{"auths": {}}')
    request = asked("import", "docker://quay.io/a", "t", "--auth-file", str(file), "--platform", "linux/arm64")
    assert (request.access.headers, request.access.registry) == ((), RegistryAccess(auth_file=str(file), platform="linux/arm64"))
    assert "registries" in refused("import", URL, "t", "--auth-file", str(file)).cause
    assert "no platform" in refused("import", "docker://quay.io/a", "t", "--platform", "arm64").cause
    assert "container image" in refused("import", URL, "t", "--platform", "linux/arm64").cause


@pytest.mark.parametrize("command", ["import", "inspect"])
def test_help_fits_one_screen(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert len(text.splitlines()) <= 50
    assert max(map(len, text.splitlines())) <= 100


def test_every_option_says_what_it_does():
    tops = parser()
    commands = next(one for one in tops._actions if isinstance(one, argparse._SubParsersAction))
    for command in commands.choices.values():
        assert all(action.help for action in command._actions)


def test_a_bad_command_line_ends_with_64_in_the_common_form(capsys):
    assert main(["import", URL, "t", "--nonsense"]) == 64
    shown = capsys.readouterr()
    assert shown.err.startswith("error[usage]: ")
    assert "what to do: " in shown.err
    assert shown.out == ""


def test_a_bad_command_line_is_an_event_where_json_is_asked_for(capsys):
    assert main(["import", URL, "--json"]) == 64
    assert '"event": "failure"' in capsys.readouterr().out


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("slipstream ")


@pytest.mark.parametrize(("words", "how"), [(["--preallocate"], "falloc"), (["--preallocate", "full"], "full"), ([], None)])
def test_preallocation_does_not_swallow_the_source(words: list[str], how: str | None) -> None:
    chosen = options.spelled_out(["import", *words, URL, "disk.img"])
    assert (chosen[-2:], asked(*chosen).preallocate) == ([URL, "disk.img"], how)
