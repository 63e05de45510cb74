"""The command line: from the arguments to one run, or a sweep."""
