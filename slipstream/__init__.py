"""The `slipstream` command: composes the houses' subcommands, nothing else."""
