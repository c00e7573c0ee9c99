"""visa-proxy inside the servers people already run."""
