"""Statistics on tables; torch is not loaded."""
