"""Expressions over several lines, for those who read a rule file or Prometheus' own pages."""


def share(part: str, whole: str) -> str:
    """As promql.ratio: no result where the whole is nothing."""
    return f"{part}\n  /\n({whole} > 0)"


def lines(*parts: str) -> str:
    return "\n".join(parts)
