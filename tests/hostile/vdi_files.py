"""VDI images that name parents, contradict themselves or were cut."""

from hostile.hostile_file import HostileFile
from hostile.vdi_builder import BLOCK, FREE, Vdi

SOMEONE = bytes(range(1, 17))

FILES: tuple[HostileFile, ...] = (
    HostileFile("vdi-differencing", "unsafe", lambda: Vdi(kind=4, parent=SOMEONE, link=SOMEONE).build()),
    HostileFile("vdi-differencing-without-parent", "unsafe", lambda: Vdi(kind=4).build()),
    HostileFile("vdi-parent-in-a-dynamic-disk", "unsafe", lambda: Vdi(parent=SOMEONE).build()),
    HostileFile("vdi-link-in-a-dynamic-disk", "unsafe", lambda: Vdi(link=SOMEONE).build()),
    HostileFile("vdi-undo-disk", "unsupported", lambda: Vdi(kind=3).build()),
    HostileFile("vdi-kind-0", "unsupported", lambda: Vdi(kind=0).build()),
    HostileFile("vdi-version-0", "unsupported", lambda: Vdi(version=1).build()),
    HostileFile("vdi-blocks-of-64-kib", "unsupported", lambda: Vdi(block=65536).build()),
    HostileFile("vdi-blocks-of-0", "unsupported", lambda: Vdi(block=0).build()),
    HostileFile("vdi-extra-bytes", "unsupported", lambda: Vdi(extra=512).build()),
    HostileFile("vdi-sectors-of-4096", "unsupported", lambda: Vdi(sector=4096).build()),
    HostileFile("vdi-16-exbibytes", "too-large", lambda: Vdi(size=(1 << 64) - 512).build()),
    HostileFile("vdi-map-too-small", "corrupt", lambda: Vdi(size=5 * BLOCK).build()),
    HostileFile("vdi-4-gi-blocks", "unsafe", lambda: Vdi(blocks=0xFFFFFFFF).build()),
    HostileFile("vdi-map-of-20-mib-for-4-mib", "unsafe", lambda: Vdi(blocks=5 << 20, data_offset=32 << 20).build()),
    HostileFile("vdi-map-past-the-end", "truncated", lambda: Vdi(map_offset=1 << 30, data_offset=1 << 31).build()),
    HostileFile("vdi-map-in-the-header", "corrupt", lambda: Vdi(map_offset=0).build()),
    HostileFile("vdi-map-between-sectors", "corrupt", lambda: Vdi(map_offset=700).build()),
    HostileFile("vdi-data-in-the-map", "corrupt", lambda: Vdi(data_offset=512).build()),
    HostileFile("vdi-shared-blocks", "bomb", lambda: Vdi(entries=[0] * 100, size=100 * BLOCK).build()),
    HostileFile("vdi-block-past-the-end", "truncated", lambda: Vdi(entries=[0, 1, FREE, 0xFFFFFFFD]).build()),
    HostileFile("vdi-cut", "truncated", lambda: Vdi().build()[:-1]),
    HostileFile("vdi-cut-in-the-map", "truncated", lambda: Vdi().build()[:600]),
    HostileFile("vdi-cut-in-the-header", "truncated", lambda: Vdi().build()[:500]),
)
