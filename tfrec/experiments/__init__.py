"""A run from settings to a finished folder, and what is made of finished ones."""
