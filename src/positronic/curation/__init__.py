"""Curation: quality measures of recordings, and which of them stand out."""

from positronic.curation.outliers import Outlier, Reason, outliers
from positronic.curation.scores import Scores, score_dataset

__all__ = ["Outlier", "Reason", "Scores", "outliers", "score_dataset"]
