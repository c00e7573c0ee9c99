"""Where exposures and feedback are kept: SQLite in a file, or Postgres by URL."""
