"""Several processes that serve one address and are one proxy to whoever asks: one set of metrics, limits and kept responses."""
