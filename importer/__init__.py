"""The importer owns disks: where their bytes come from, whether they are safe, and how they land."""
