"""``priorloom diagnose``: of an `operator`, an `unrolled` network, and the `stability` of a method."""
