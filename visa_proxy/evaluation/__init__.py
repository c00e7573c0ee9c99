"""How well rewriters work, on frozen cases."""
