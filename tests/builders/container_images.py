"""Container images with disks in them, made by buildah and pushed by buildah and skopeo."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tools import needs_root, tool, without


@dataclass
class Workshop:
    """Builds in a storage of its own. Images are kept as `oci:` layouts until they are pushed."""

    folder: Path
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        needs_root()  # buildah mount
        # The machine's own settings (mirrors, policies, credentials) must not take part.
        (self.folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (self.folder / "registries.conf").write_text("")

    def image(
        self, name: str, *layers: dict[str, Path | bytes | None], arch: str | None = None, labels: tuple[str, ...] = ()
    ) -> str:
        """Build localhost/NAME of layers, lowest first: each maps a path to content, or to None to delete it. Return the name."""
        below = "scratch"
        for number, layer in enumerate(layers):
            container = self.buildah("from", "--pull-never", below).strip()
            mounted = Path(self.buildah("mount", container).strip())
            for path, content in layer.items():
                self._put(mounted / path, content)
            self.buildah("umount", container)
            words = [part for label in labels for part in ("--label", label)]
            self.buildah("config", *(["--arch", arch] if arch else []), *words, container)
            below = f"localhost/{name}-{number}" if number + 1 < len(layers) else f"localhost/{name}"
            self.buildah("commit", "--quiet", "--format", "oci", container, below)
            self.buildah("rm", container)
        return below

    def _put(self, path: Path, content: Path | bytes | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)

    def push(self, image: str, target: str, *options: str) -> None:
        """Push to docker://, oci: or docker-archive:, as OCI unless the options say otherwise."""
        formats = [] if "--format" in options or target.startswith("docker-archive:") else ["--format", "oci"]
        self.buildah("push", "--quiet", "--tls-verify=false", *formats, *options, image, target)

    def index(self, name: str, target: str, *images: str) -> None:
        """Push an index of images."""
        self.buildah("manifest", "create", name, *images)
        self.buildah("manifest", "push", "--all", "--tls-verify=false", name, target)

    def copy(self, source: str, target: str, *options: str) -> None:
        """Copy with skopeo."""
        words = ["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", *options, source, target]
        self._run([tool("skopeo"), "--policy", str(self.folder / "policy.json"), *words])

    def buildah(self, *words: str) -> str:
        """Run buildah and return what it prints."""
        own = ["--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run", "--storage-driver", "vfs"]
        policy = ["--signature-policy", f"{self.folder}/policy.json"] if words[0] in ("push", "commit", "from") else []
        config = ["--registries-conf", f"{self.folder}/registries.conf"]
        return self._run([tool("buildah"), *own, *config, words[0], *policy, *words[1:]])

    def _run(self, words: list[str]) -> str:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        if ended.returncode and ("permission denied" in ended.stderr or "not permitted" in ended.stderr):
            without(f"buildah may not work here: {ended.stderr.strip()[-300:]}")
        assert ended.returncode == 0, f"{words}\n{ended.stderr}"
        return ended.stdout
