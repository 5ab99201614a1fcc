"""``priorloom studio``: open a scan, move the parameters of methods, watch the images converge, save the config.

`session` and `controls` know no browser, and `files` keeps every path under one folder. `page` with its parts
(`panels`, `viewer`, `curves`, `tables`, `look`) is the page, `app` and `serve` show it to this machine alone.
"""
