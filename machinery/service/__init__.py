"""What every long-running or network-facing program needs: TLS contexts, signals."""
