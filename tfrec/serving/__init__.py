"""Model -> SavedModel."""
