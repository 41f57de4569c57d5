"""Boards, rules and alerts as Python, which takes its metric names from monitor.metrics: a renamed metric
breaks the build.

    promql       expressions out of metric families, their labels and values checked
    variables    datasource and server, which the reader chooses
    colours      one for each meaning
    panels       one panel; fills in what the SDK leaves open
    board        panels in rows on a grid, variables, links
    boards/      one file is one board, and reads as its table of contents
    rules/       recording rules and alerts
    generated/   what `python -m dashboards` writes, and `--check` holds to its source
    runbooks/    one for each alert: meaning, impact, diagnosis, action

deploy/grafana/ has the provisioning files that bring the generated ones into Grafana.
"""
