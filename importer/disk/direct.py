"""Positioned writes into a file or device that is open, long ones around the page cache where that works."""

import errno
import os
import threading

ALIGNMENT = 4096
"""Of direct writes: offset, length and memory. No disk has larger blocks without saying so (EINVAL)."""
_ZEROES = bytes(1 << 20)


class DirectWriter:
    """Writes through one descriptor, which stays its owner's. May be used in many threads. Raises OSError."""

    def __init__(self, fd: int) -> None:
        """Write into what is open as `fd`."""
        self._fd = fd
        self._direct_fd: int | None = None
        """Opened at the first long write; -1 where the file system takes no O_DIRECT."""
        self._opening = threading.Lock()

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`."""
        view = memoryview(data).cast("B")
        while view:
            done = os.pwrite(self._fd, view, offset)
            offset, view = offset + done, view[done:]

    def write_direct(self, offset: int, data: memoryview) -> None:
        """Like `write`, but around the page cache where that is possible: for long runs, aligned to 4 KiB.

        Two copies and the work of write-back are spared, and the final fsync finds nothing left to do.
        """
        direct = -1 if offset % ALIGNMENT or len(data) % ALIGNMENT else self._opened()
        if direct < 0:
            self.write(offset, data)
            return
        while data:
            try:
                done = os.pwrite(direct, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self.write(offset, data)  # a device with larger blocks than we align to, or a short write before
                return
            offset, data = offset + done, data[done:]

    def write_zeroes(self, offset: int, size: int) -> None:
        """Write zeroes for real."""
        end = offset + size
        while offset < end:
            step = min(end - offset, len(_ZEROES))
            self.write(offset, memoryview(_ZEROES)[:step])
            offset += step

    def takes_direct(self) -> bool:
        """True if O_DIRECT works, and so `qemu-img -t none`."""
        try:
            os.close(os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def _opened(self) -> int:
        """Return a descriptor for direct writes, -1 where that does not work."""
        with self._opening:
            if self._direct_fd is None:
                try:
                    self._direct_fd = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
                except OSError:
                    self._direct_fd = -1
            return self._direct_fd

    def close(self) -> None:
        """Close what it opened itself."""
        fd, self._direct_fd = self._direct_fd, -1
        if fd is not None and fd >= 0:
            os.close(fd)
