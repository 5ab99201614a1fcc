"""``priorloom studio``: open a scan, move the parameters of methods, watch the images converge, save the config.

`session` and `controls` know no browser, `files` keeps every path under one folder; `page`, `panels`, `viewer`, `curves`
and `look` are the page, and `serve` shows it to this machine alone.
"""
