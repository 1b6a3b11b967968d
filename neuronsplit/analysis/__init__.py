"""Statistics on tables. Nothing here loads torch."""
