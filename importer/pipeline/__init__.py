"""From a request to a published disk: probe, judge, route, move bytes, verify. Front doors call `run` and nothing else."""
