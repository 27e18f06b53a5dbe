"""ftlib against other libraries, run by hand; results in RESULTS.md. Tests hold no
timings.
"""
