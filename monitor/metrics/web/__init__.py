"""What --web-config asks of the metrics server: TLS, passwords, headers, a bound on how often.

config.py reads the file, tls.py makes the TLS of it; gate.py says who may have an answer, by passwords.py and
rate_limit.py.
"""
