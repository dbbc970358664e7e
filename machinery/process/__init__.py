"""Child processes: how they are confined, watched and ended; and the system calls that Python lacks."""
