"""Looking back at runs: reading what they left, in whatever state, and showing it as one page."""
