"""The chains of stages that need no keys: those of Table 4 with some losses left out, and those under other thresholds."""

from typing import Any

from caguda.config import Configuration, Labels, Recipe
from caguda.pseudo_labels import Rule
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.pseudo_labels.probability import ProbabilityRule

PREFIX = "ablation-"
MARGINS = (0.0, 0.5, 2.0, 4.0)
"""The margins of a sweep, in multiples of the configured one."""
P0S = (0.0, 0.5, 0.8, 0.9, 0.99)


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


def sweep(labels: Labels) -> dict[str, tuple[str, float]]:
    """The thresholds of a sweep by the name of their folder: another margin, or another P0, and all else as configured."""
    values = [("margin", factor * labels.margin) for factor in MARGINS] + [("p0", p0) for p0 in P0S]
    configured = set(labels.model_dump().items())
    return {f"sweep-{key}-{value:g}": (key, value) for key, value in values if (key, value) not in configured}


def chains(configuration: Configuration) -> dict[str, Recipe]:
    """Every chain of stages by the name of its folder: the recipes, and of the first one the ablations and the sweep."""
    first = next(iter(configuration.recipes.values()))
    return configuration.recipes | ablations(first) | dict.fromkeys(sweep(configuration.labels), first)


def thresholds_of(configuration: Configuration, recipe: str) -> Labels:
    """The thresholds that a chain of stages is labelled with: the configured ones, but for one in a chain of the sweep."""
    key, value = sweep(configuration.labels).get(recipe, ("p0", configuration.labels.p0))
    return configuration.labels.model_copy(update={key: value})


def rules_of(labels: Labels) -> dict[str, Rule]:
    """The rules of pseudo-labels with these thresholds, by name."""
    return {
        "anchor": AnchorRule(margin=labels.margin, unit=labels.margin_unit),
        "probability": ProbabilityRule(p0=labels.p0),
    }


def known_rules(configuration: Configuration) -> dict[str, Rule]:
    """Every rule that some chain of stages is labelled with, by the name of its folder."""
    every = [rules_of(thresholds_of(configuration, recipe)) for recipe in chains(configuration)]
    return {rule.folder: rule for rules in every for rule in rules.values()}


def labelling_of(configuration: Configuration, recipe: str) -> str:
    """The name of the pseudo-labels of a chain of stages: the folders of its rules."""
    return "+".join(rule.folder for rule in rules_of(thresholds_of(configuration, recipe)).values())
