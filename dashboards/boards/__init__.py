"""One file is one board, and its `board()` is the table of contents."""

from dashboards.board import Board
from dashboards.boards import health, inside, reach, security, tls, visibility


def all_boards() -> tuple[Board, ...]:
    """In the order of an operator's morning; Grafana lists them by title."""
    return tuple(module.board() for module in (visibility, reach, tls, inside, security, health))
