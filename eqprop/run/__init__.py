"""What one run is on a machine: folder, files, lock, signals, streams. Nothing here loads torch."""
