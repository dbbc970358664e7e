"""Values that cross a process boundary: requests, receipts, failures. Pure: nothing here does I/O."""
