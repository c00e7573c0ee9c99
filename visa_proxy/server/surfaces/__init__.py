"""The wire formats of the OpenAI API, and the one form in which the rest of the server sees them."""
