"""The configuration: composed, typed, and every mistake in it told in one line."""
