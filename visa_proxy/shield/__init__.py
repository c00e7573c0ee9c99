"""The flow from a base answer to a verified rewrite, or back to the base answer."""
