"""The artifacts of a run's `metrics`: of encoders, of labels, of the data, and of each point of the
sweep."""

from __future__ import annotations

from collections.abc import Iterator

from vista.config.encoders import reads_patches
from vista.config.run import Metrics
from vista.config.sweep import Point
from vista.engine.node import Inputs, Node, dump, point_name, with_judge, with_judges
from vista.engine.nodes import Builder


class MetricBuilder:
    """Makes the nodes of a run's metrics; a metric that is null has none."""

    def __init__(self, builder: Builder, settings: Metrics) -> None:
        self.builder, self.settings = builder, settings

    def of_encoders(self) -> Iterator[tuple[str, Node]]:
        """Yield encoder and metric."""
        builder, probe = self.builder, self.settings.probe
        if probe is None:
            return
        for name in builder.config.encoders:
            # It tells what a patch shows.
            if reads_patches(builder.config.encoders, name):
                inputs = {"features": builder.evaluated(name), "records": builder.data.records}
                yield name, Node("probe", name, dump(probe), inputs)

    def of_labels(self) -> Iterator[tuple[str, Node]]:
        """Yield language model and metric, for each layer that has an SAE."""
        builder, naming = self.builder, self.settings.naming
        if naming is None:
            return
        for (llm, layer), labels in builder.labels.items():
            inputs = {"labels": labels, "records": builder.data.records}
            yield llm, Node("naming", f"{llm}-l{layer}", dump(naming), inputs)

    def of_data(self) -> Iterator[Node]:
        """Yield what is measured once a run."""
        builder, agreement = self.builder, self.settings.judge_agreement
        if agreement is None:
            return
        inputs: dict[str, Node | tuple[Node, ...]] = {
            "records": builder.data.records,
            "labels": tuple(builder.labels.values()),
        }
        if agreement.show_images:
            inputs |= builder.data.images
        judges = {f"judge_{name}": judge for name, judge in agreement.judges.items()}
        name = builder.data.records.name
        yield with_judges("judge_agreement", name, dump(agreement), inputs, judges)

    def of_point(self, point: Point, projector: Node, latents: Node) -> Iterator[Node]:
        """Yield the metrics of one point of the sweep."""
        builder, metrics, name = self.builder, self.settings, point_name(point)
        records, features = builder.data.records, builder.evaluated(point.encoder)
        labels = builder.labels_of(point.llm)
        read: Inputs = {"latents": latents, "labels": labels, "records": records}
        if metrics.reconstruction:
            settings = dump(metrics.reconstruction)
            yield Node("reconstruction", name, settings, {"latents": latents})
        if (matching := metrics.matching_rate) is not None:
            shown: Inputs = builder.data.images if matching.evidence == "image" else {}
            judge = matching.judge
            yield with_judge("matching_rate", name, dump(matching), {**read, **shown}, judge)
        if (pointing := metrics.localization) is not None:
            inputs: Inputs = {**read, "features": features}
            yield with_judge("localization", name, dump(pointing), inputs, pointing.judge)
        if (caption := metrics.caption) is not None:
            settings, model = builder.read(point.llm)
            split = builder.config.judged_split(caption.split)
            settings["caption"] = dump(caption) | {"split": split}
            inputs = {**model, "projector": projector, "features": features, "records": records}
            yield with_judge("caption", name, settings, inputs, caption.judge)
