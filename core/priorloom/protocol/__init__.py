"""The fair-baseline protocol: what a config says (`tuning`), that tuning and test cases are apart (`disjoint`),
the tuning (`run`), and means with their uncertainty (`statistics`)."""
