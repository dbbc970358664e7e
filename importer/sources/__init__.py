"""Where bytes come from. Each source implements `protocol.Source`; adding a scheme is one file and one row in `schemes`."""
