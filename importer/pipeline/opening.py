"""A source for what was named: by the scheme table, or the disk inside a container image."""

from importer.api.request import ImportRequest
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Policy
from importer.sources import schemes
from importer.sources.protocol import Source


async def open_source(request: ImportRequest, meter: Meter, policy: Policy, *, capacity: int, connections: int) -> Source:
    """Open and probe `request.source`, reading ahead at most `capacity` pieces. Raises Failure."""
    if not schemes.names_image(request.source):
        return await schemes.open_source(request.source, request.access)
    from importer.pipeline.layer import LayerSource, Means  # what reads images from registries takes long to load
    from importer.sources.images import open_image

    layers = await open_image(request.source, request.access)
    return await LayerSource.open(
        layers,
        Means(meter=meter, policy=policy, connections=connections, memory=request.decoder_memory, capacity=capacity),
    )
