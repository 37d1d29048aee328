"""Messages as text for a person: pure functions, one file a view."""
