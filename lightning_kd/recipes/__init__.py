"""Published systems as one function each."""

from lightning_kd.recipes.generations import LogitEnsemble, born_again

__all__ = ["LogitEnsemble", "born_again"]
