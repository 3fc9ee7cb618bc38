"""The paper's equations as pure functions: tensors in, tensors out, no files, no configuration, no state.

`thresholds` has numpy arrays in place of tensors.

Shapes, everywhere: n images, c categories, d feature channels, h w feature map, H W image.
Labels are categories 0..c-1, or IGNORE where a pixel has no category.
"""

IGNORE = 255
