"""The chains of stages of Table 4: the first recipe with some of its losses, and two ways that the paper warns of."""

from typing import Any

from caguda.config import Recipe

PREFIX = "ablation-"


def ablations(recipe: Recipe) -> dict[str, Recipe]:
    """The rows of Table 4 between warm-up and stage 1, and what its text adds, by the name of their folder; one stage each.

    The weights are those of the recipe, or 0. `no-warm-up` starts from the source-only model; `every-iteration` renews the
    pseudo-labels of the whole objective at every iteration.
    """
    distance, anchor, probability = recipe.distance, recipe.anchor_cross_entropy, recipe.probability_cross_entropy
    rows: dict[str, dict[str, Any]] = {
        "probability": {"probability_cross_entropy": probability},
        "anchor": {"anchor_cross_entropy": anchor},
        "probability-distance": {"distance": distance, "distance_labels": "probability"},
        "distance": {"distance": distance},
        "distance-anchor": {"distance": distance, "anchor_cross_entropy": anchor},
        "anchor-probability": {"anchor_cross_entropy": anchor, "probability_cross_entropy": probability},
        "no-warm-up": recipe.model_dump() | {"start": "pretrain"},
        "every-iteration": recipe.model_dump() | {"renewed": "iteration"},
    }
    nothing = {"distance": 0.0, "anchor_cross_entropy": 0.0, "probability_cross_entropy": 0.0}
    return {PREFIX + name: Recipe.model_validate(nothing | values) for name, values in rows.items()}


def chains(recipes: dict[str, Recipe]) -> dict[str, Recipe]:
    """Every chain of stages by the name of its folder: the recipes, and the ablations of the first one."""
    return recipes | ablations(next(iter(recipes.values())))
