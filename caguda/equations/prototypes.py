"""Prototypes of ProDA (Zhang et al., CVPR 2021): centroids of target features that correct pseudo-labels while they move.

Their distances are those of `anchors.distances`. Absent categories have no prototype: leave their columns out of distances.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from caguda.equations.anchors import class_sums, distances, image_means
from caguda.equations.losses import LossSum


class ClassMeans(NamedTuple):
    """The mean feature of each category in each image, 0 where it is absent."""

    vectors: Float[Tensor, "n c d"]
    present: Bool[Tensor, "n c"]


def prototype_weights(distances: Float[Tensor, "n c h w"], temperature: float) -> Float[Tensor, "n c h w"]:
    """The weight of every category at every pixel, softmax of -temperature times distance; weights of a pixel add up to 1.

    The weight omega of ProDA. temperature >= 0 multiplies here, as in the public code. That code subtracts the smallest
    distance first (microsoft/ProDA models/adaptation_modelv2.py:348-355), which changes nothing.
    """
    return (-temperature * distances).softmax(dim=1)


def category_weights(
    features: Float[Tensor, "n d h w"],
    prototypes: Float[Tensor, "c d"],
    present: Bool[Tensor, " c"],
    temperature: float,
) -> Float[Tensor, "n c h w"]:
    """The weight of every category at every pixel, where some categories have no prototype yet; those of a pixel add up to 1.

    A category without a prototype weighs 1/c, whatever its vector. The others share the rest by `prototype_weights`. So
    without any prototype, and for temperature 0, all weights are 1/c and change no soft pseudo-label.
    """
    distance = distances(features, prototypes)
    weights = torch.full_like(distance, 1 / len(prototypes))
    share = present.sum() / len(prototypes)
    weights[:, present] = share * prototype_weights(distance[:, present], temperature)
    return weights


def rectified_probabilities(
    weights: Float[Tensor, "n c h w"], probabilities: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c h w"]:
    """The soft pseudo-labels times the weights of the prototypes, normalised to add up to 1 at every pixel.

    ProDA's correction of pseudo-labels; the label is the category of the largest. A pixel where all products are 0 has 0
    everywhere, where the public code divides 0 by 0 (microsoft/ProDA models/adaptation_modelv2.py:209-214).
    """
    products = weights * probabilities
    total = products.sum(dim=1, keepdim=True)
    return products / total.where(total > 0, 1)


def class_means(
    features: Float[Tensor, "n d h w"], labels: Integer[Tensor, "n h w"], categories: int, at_least: int
) -> ClassMeans:
    """The mean feature of each category in each image; absent where it has fewer than `at_least` pixels there.

    ProDA moves its prototypes by these means of the teacher's features, labelled by the teacher's own most probable
    category, with at least 10 pixels (microsoft/ProDA models/adaptation_modelv2.py:113). Its first prototypes are the
    averages of such means over all images, as `anchors_from` makes them of the sum of `image_means`. n >= 1, at_least >= 1.
    Pixels of IGNORE do not count. Another label outside 0..c-1 is a RuntimeError.
    """
    images = zip(features.split(1), labels.split(1), strict=True)
    means = [image_means(class_sums(image, truth, categories), at_least) for image, truth in images]
    vectors = torch.stack([mean.sums for mean in means]).to(features.dtype)
    return ClassMeans(vectors, torch.stack([mean.weights for mean in means]) > 0)


def updated_prototypes(prototypes: Float[Tensor, "c d"], means: ClassMeans, momentum: float) -> Float[Tensor, "c d"]:
    """The prototypes, moved towards the class means of one image after another by the share `momentum`.

    ProDA's moving average, momentum 1e-4. The order of images decides digits, as in the public code (microsoft/ProDA
    models/adaptation_modelv2.py:434-440). A category that is absent in an image does not move. A prototype of nan stays
    nan, where the public code begins at 0.
    """
    for vectors, present in zip(means.vectors, means.present, strict=True):
        moved = prototypes.lerp(vectors.to(prototypes.dtype), momentum)
        prototypes = moved.where(present[:, None], prototypes)
    return prototypes


def running_prototypes(
    prototypes: Float[Tensor, "c d"],
    images: Int64[Tensor, " c"],
    sums: Float[Tensor, "c d"],
    added: Int64[Tensor, " c"],
    decay: float,
) -> Float[Tensor, "c d"]:
    """The prototypes after further images: the mean over all images so far, later their moving average.

    The prototype of a category comes from `images` images; `sums` adds up its class means in `added` further ones. It keeps
    the share min(decay^added, images / (images + added)), decay in 0..1. For one image, and once 1 / (1 - decay) images have
    been seen, this is `updated_prototypes` with momentum 1 - decay. Of several images all weigh alike, so that their order
    plays no role. Adds in float64. A category without further images stays as it is.
    """
    before, new = images.double(), added.double()
    kept = torch.minimum(decay**new, before / (before + new).clamp(min=1))
    means = sums.double() / new.clamp(min=1)[:, None]
    moved = means.lerp(prototypes.double(), kept[:, None]).to(prototypes.dtype)
    return moved.where(added[:, None] > 0, prototypes)


def consistency_loss(
    student_distances: Float[Tensor, "n c h w"], teacher_distances: Float[Tensor, "n c h w"], temperature: float
) -> LossSum:
    """The divergence KL(teacher || student) of the weights of prototypes in two views; the mean is over categories too.

    ProDA's structure learning: the student sees the strongly augmented view, the teacher the weak one. See
    `prototype_weights`. Each pixel and category counts, as in the public code (microsoft/ProDA
    models/adaptation_modelv2.py:231-249): a mean over pixels would be c times as large. Distances are finite.
    """
    student, teacher = ((-temperature * d).log_softmax(dim=1) for d in (student_distances, teacher_distances))
    total = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return LossSum(total, total.new_tensor(student.numel(), dtype=torch.int64))
