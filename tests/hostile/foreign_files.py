"""Files that are no disk, or no disk that is read here: each is refused by name of what it is."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile

from hostile.hostile_file import HostileFile


def zip_archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("disk.img", bytes(4096))
    return out.getvalue()


def empty_zip() -> bytes:
    out = io.BytesIO()
    zipfile.ZipFile(out, "w").close()
    return out.getvalue()


def tar_archive(form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        info = tarfile.TarInfo("disk.img")
        info.size = 4096
        archive.addfile(info, io.BytesIO(bytes(4096)))
    return out.getvalue()


def old_tar() -> bytes:
    """A tar header as Unix V7 wrote it, without the word ustar."""
    header = bytearray(512)
    header[:8] = b"disk.img"
    header[100:136] = b"0000644\0" + b"0000000\0" * 2 + b"00000000000\0"
    header[136:148] = b"00000000000\0"
    header[148:156] = b"%06o\0 " % (sum(header) + 8 * 0x20)
    return bytes(header) + bytes(1024)


def dmg() -> bytes:
    return bytes(8192) + b"koly\0\0\0\4\0\0\2\0".ljust(512, b"\0")


def page(text: str) -> bytes:
    return text.encode()


HTML = "<html><head><title>Sign in</title></head><body>" + "x" * 5000 + "</body></html>"
S3_ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 123456789\n"
DESCRIPTOR = (
    '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/shadow" 0\n'
)
DESCRIPTOR_DISGUISED = '\n \n# hello\n\nversion=1\nCID=fffffffe\nparentCID=ffffffff\nRW 8 FLAT "/etc/shadow" 0\n'

FILES: tuple[HostileFile, ...] = (
    HostileFile("empty", "empty", lambda: b""),
    HostileFile("zip", "not-a-disk", zip_archive),
    HostileFile("zip-empty", "not-a-disk", empty_zip),
    HostileFile("7z", "not-a-disk", lambda: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(4096)),
    HostileFile("rar", "not-a-disk", lambda: b"Rar!\x1a\x07\x01\0" + bytes(4096)),
    HostileFile("cabinet", "not-a-disk", lambda: b"MSCF\0\0\0\0" + bytes(4096)),
    HostileFile("wim", "not-a-disk", lambda: b"MSWIM\0\0\0\xd0\0\0\0" + bytes(4096)),
    HostileFile("bzip2", "not-a-disk", lambda: bz2.compress(b"disk" * 1000)),
    HostileFile("bzip2-empty", "not-a-disk", lambda: bz2.compress(b"")),
    HostileFile("lz4", "not-a-disk", lambda: b"\x04\x22\x4d\x18\x64\x40\xa7" + bytes(4096)),
    HostileFile("lzma-alone", "not-a-disk", lambda: lzma.compress(bytes(9999), format=lzma.FORMAT_ALONE)),
    HostileFile("tar", "not-a-disk", tar_archive),
    HostileFile("tar-gnu", "not-a-disk", lambda: tar_archive(tarfile.GNU_FORMAT)),
    HostileFile("tar-v7", "not-a-disk", old_tar),
    HostileFile("deb", "not-a-disk", lambda: b"!<arch>\ndebian-binary   " + bytes(4096)),
    HostileFile("rpm", "not-a-disk", lambda: b"\xed\xab\xee\xdb\3\0" + bytes(4096)),
    HostileFile("pdf", "not-a-disk", lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3" + bytes(4096)),
    HostileFile("html", "not-a-disk", lambda: page(HTML)),
    HostileFile("html-doctype", "not-a-disk", lambda: page("\n\n  <!DOCTYPE HTML>" + HTML)),
    HostileFile("html-with-bom", "not-a-disk", lambda: b"\xef\xbb\xbf\r\n" + page("<!doctype html>" + HTML)),
    HostileFile("html-utf-16", "not-a-disk", lambda: ("<html>" + HTML).encode("utf-16")),
    HostileFile("html-behind-comments", "not-a-disk", lambda: page("<!-- a --> <!-- b -->" + HTML)),
    HostileFile("html-comments-without-end", "not-a-disk", lambda: page("<!-- -->" * 600 + "<")),
    HostileFile("xml", "not-a-disk", lambda: page('<?xml version="1.0"?><feed>' + "x" * 600 + "</feed>")),
    HostileFile("s3-error", "not-a-disk", lambda: page(S3_ERROR)),
    HostileFile("json-object", "not-a-disk", lambda: page('{"errors": [{"code": "MANIFEST_UNKNOWN"}]}' + " " * 600)),
    HostileFile("json-array", "not-a-disk", lambda: page("[\n  1, 2, 3]" + " " * 600)),
    HostileFile("lfs-pointer", "not-a-disk", lambda: page(LFS)),
    HostileFile("short-text", "not-a-disk", lambda: b"404: Not Found"),
    HostileFile("script", "not-a-disk", lambda: page("#!/bin/sh\nexit 0\n" + "# x\n" * 400)),
    HostileFile("vmdk-descriptor", "not-a-disk", lambda: page(DESCRIPTOR)),
    HostileFile("vmdk-descriptor-disguised", "not-a-disk", lambda: page(DESCRIPTOR_DISGUISED * 9)),
    HostileFile("gzip-in-gzip", "not-a-disk", lambda: gzip.compress(gzip.compress(bytes(9999)))),
    HostileFile("bzip2-in-xz", "not-a-disk", lambda: lzma.compress(bz2.compress(bytes(9999)))),
    HostileFile("qcow2-with-backing-in-gzip", "unsafe", lambda: gzip.compress(_backed())),
    HostileFile("cowd", "unsupported", lambda: b"COWD" + struct.pack("<I", 1) + bytes(4096)),
    HostileFile("qed", "unsupported", lambda: b"QED\0" + bytes(4096)),
    HostileFile("parallels", "unsupported", lambda: b"WithoutFreeSpace\2\0\0\0" + bytes(4096)),
    HostileFile("parallels-extended", "unsupported", lambda: b"WithouFreSpacExt\2\0\0\0" + bytes(4096)),
    HostileFile("dmg", "unsupported", dmg),
    HostileFile("luks", "unsupported", lambda: b"LUKS\xba\xbe\0\2" + bytes(4096)),
    HostileFile("android-sparse", "unsupported", lambda: b"\x3a\xff\x26\xed\1\0\0\0" + bytes(4096)),
)


def _backed() -> bytes:
    from hostile.qcow2_files import backed_by

    return backed_by("/etc/passwd")
