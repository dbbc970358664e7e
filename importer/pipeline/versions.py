"""Which versions took part in an import, for its receipt."""

import sys

from importer.api.version import VERSION

_LIBRARIES = ("aiohttp", "boto3", "isal", "zstandard", "deflate")


async def gather(*, ran_tool: bool) -> dict[str, str]:
    """Return name to version: Python's, ours, those of the libraries loaded so far, the tool's if it ran. Raises Failure."""
    found = {"python": ".".join(map(str, sys.version_info[:3])), "slipstream": VERSION}
    loaded = {name: sys.modules[name] for name in _LIBRARIES if name in sys.modules}
    found.update({name: str(getattr(module, "__version__", "unknown")) for name, module in loaded.items()})
    if ran_tool:
        from importer.disk import qemu_img

        found[qemu_img.TOOL] = await qemu_img.version()
    return found
