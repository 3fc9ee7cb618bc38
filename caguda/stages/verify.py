"""The verb `labels`: nothing trains on a label store that was not read back and checked. No torch, to start at once."""

from pathlib import Path

from caguda.artifacts.atomic import write_json
from caguda.artifacts.labels import open_label_store, verify_label_store


def verify_labels(store: Path, output: Path) -> None:
    """Decode and check the whole store, and write what is in it: shares of active pixels, quantiles of d2 - d1."""
    attributes = open_label_store(store).attributes
    summary = {"store": store.name, **attributes, **verify_label_store(store)}
    write_json(output, summary)
    share = summary["share"]
    print(
        f"labels: {summary['images']} images, active by anchors {share['anchor']:.1%}, by probability "
        f"{share['probability']:.1%}, by either {share['either']:.1%}; margin {summary['margin']:.3f} -> {output}"
    )
