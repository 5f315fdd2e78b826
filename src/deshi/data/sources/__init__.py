"""Readers of original files: data sets of the field, tables of any shape, databases, data frames."""

from deshi.data.sources.amazon import Amazon
from deshi.data.sources.movielens import MovieLens
from deshi.data.sources.recbole import RecBole
from deshi.data.sources.sql import SQL
from deshi.data.sources.steam import Steam
from deshi.data.sources.tabular import Tabular
from deshi.tables import to_polars

__all__ = ["SQL", "Amazon", "MovieLens", "RecBole", "Steam", "Tabular", "to_polars"]
