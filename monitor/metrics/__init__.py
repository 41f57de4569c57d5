"""Finished records -> plain integers -> Prometheus. The only folder that imports prometheus_client.

families    every metric: name, help text, labels, and the closed set of each label's values
labels      those of these sets that are the metrics' own
tally       plain integers, counted on the hot path; knows nothing of Prometheus
countries   which countries have a label of their own
collector   the integers as metric families, at the moment of a scrape
server      /metrics over HTTP
"""
