"""The plugins' own tests run where the plugins are installed: test_thirdparty.py starts them."""

collect_ignore = ["priorloom-broken", "priorloom-huber"]
