"""Figures from tables; torch is not loaded."""
