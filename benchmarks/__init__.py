"""ftlib against the libraries it stands beside, run by hand; results in RESULTS.md. Tests hold no
timings.
"""
