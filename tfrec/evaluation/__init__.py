"""Scores -> metrics."""
