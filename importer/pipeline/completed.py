"""An import that was stopped after it had made its disk: the same command ends well, and tidies up."""

from contextlib import suppress
from dataclasses import replace

from importer.api.report import Receipt
from importer.api.request import ImportRequest
from importer.disk import aftermath
from importer.pipeline.resume import command


def before(request: ImportRequest) -> Receipt | None:
    """Return the receipt of an earlier run of the same command that made the disk but came to no end, None if there was none.

    Raises Failure("busy") if it is just coming to its end.
    """
    if request.force or request.restart:
        return None
    finished = aftermath.tidy(request.target)
    if finished is None or finished.request != command(request) or request.source == "-":  # what comes in may be another image
        return None
    with suppress(KeyError, TypeError, ValueError):
        receipt = Receipt.of_json(finished.receipt)
        told = "was complete: an earlier run of the same command was stopped after it had made the disk"
        return replace(receipt, notes=(*receipt.notes, told))
    return None
