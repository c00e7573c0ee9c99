"""The page at /ui: what the proxy does, for people to look at and to try out."""
