"""Many runs: each job of a sweep is one run in a process of its own."""
