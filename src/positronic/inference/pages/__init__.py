"""HTML templates of reports and comparisons, and the module that renders them."""

__all__: list[str] = []
